"""The seconds that a block took."""

import logging
import re
import time

import pytest

from recsys.timing import clocked, timed

logger = logging.getLogger("recsys.test")


def test_says_what_a_block_did_and_how_long_it_took(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "recsys"), timed(logger, "read %s of %s", 3, "50%"):
        pass
    (record,) = caplog.records
    assert record.name == "recsys.test"
    assert re.fullmatch(r"read 3 of 50% in \d+\.\d s", record.getMessage())


def test_says_nothing_of_a_block_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "recsys"),
        pytest.raises(ValueError, match="no"),
        timed(logger, "read"),
    ):
        raise ValueError("no")
    assert not caplog.records


def test_a_block_that_waits_takes_seconds_and_no_processor() -> None:
    figures = {"users": 3.0}
    with clocked(figures):
        time.sleep(0.1)
    assert figures["users"] == 3
    assert figures["seconds"] >= 0.1 > figures["cpu_seconds"] >= 0
