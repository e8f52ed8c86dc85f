"""What there is of memory, by files as Linux writes them, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys import memory
from recsys.errors import DataError
from recsys.memory import available_memory, check_memory, refused

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of which 8 GiB are free, without a container."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


def test_of_a_machine(machine: Path) -> None:
    assert available_memory() == 8 * GIB


def test_where_linux_does_not_tell_it_is_all_that_there_is(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert available_memory() > 8 * 2**20


@pytest.mark.parametrize(
    ("limit", "current", "cached", "free"), [(6, 5, 2, 3), (20, 1, 0, 8), ("max", 1, 0, 8)]
)
def test_of_a_container(
    machine: Path, limit: int | str, current: int, cached: int, free: int
) -> None:
    (machine / "memory.max").write_text(str(limit * GIB if isinstance(limit, int) else limit))
    (machine / "memory.current").write_text(f"{current * GIB}\n")
    (machine / "memory.stat").write_text(f"anon 1\ninactive_file {cached * GIB}\n")
    assert available_memory() == free * GIB


@pytest.mark.usefixtures("machine")
def test_what_there_is_not_is_refused() -> None:
    check_memory(8 * GIB, "a table", "take a smaller one")
    message = r"a table would take 9 GiB of memory, and 8\.0 GiB are free; take a smaller one"
    with pytest.raises(DataError, match=message):
        check_memory(9 * GIB, "a table", "take a smaller one")


def test_a_little_is_taken_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    check_memory(GIB, "a table", "take a smaller one")


def test_memory_that_was_not_given() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(10**15)
    assert refused(of_torch.value) == "4000000000000000 bytes more than there is"
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(10**16)
    assert refused(of_numpy.value) == "71.1 PiB more than there is"
    of_cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has")
    assert refused(of_cuda) == "20.00 GiB more than there is"
    assert refused(MemoryError()) == "more than there is"
    assert refused(RuntimeError("shapes do not fit")) is None
