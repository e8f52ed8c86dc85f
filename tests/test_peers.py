"""The table beside other frameworks: our ticks lead somewhere, and theirs are what was tried."""

import json
import re
from pathlib import Path

import pytest

import recsys.models
from recsys.scoring import Scorer

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/peers.md"
PEERS = ("rectools", "lenskit", "recbole", "replay")
UNTRIED = ("by its documentation", "not checked")


def rows() -> list[list[str]]:
    """A list of cells for each row: what is done, ours, and those of the peers."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0]]


def record(peer: str) -> dict:
    return json.loads((ROOT / f"benchmarks/peers/results/{peer}.json").read_text())


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name, as the site has them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def links(text: str) -> list[tuple[Path, str]]:
    """The files that a text of the page points at, each with the place in it."""
    found = re.findall(r"\]\(([^)#]+)#?([^)]*)\)", text)
    return [((PAGE.parent / path).resolve(), anchor) for path, anchor in found]


def test_each_row_says_yes_or_no_of_everybody() -> None:
    table = rows()
    assert len(table) > 40
    assert len({row[0] for row in table}) == len(table)
    for row in table:
        assert len(row) == 6, row
        assert all(re.match(r"(yes|no)\b", cell) for cell in row[1:]), row


def test_each_of_our_ticks_leads_to_a_page_or_a_test() -> None:
    for row in rows():
        ours = links(row[1])
        assert bool(ours) == row[1].startswith("yes"), row[0]
        for path, anchor in ours:
            is_test = ROOT / "tests" in path.parents and path.name.startswith("test_")
            assert path.is_file(), (row[0], path)
            assert path.suffix == ".md" or is_test, (row[0], path)
            assert not anchor or anchor in anchors(path), (row[0], anchor)


@pytest.mark.parametrize("peer", PEERS)
def test_what_is_said_of_a_peer_is_what_was_tried(peer: str) -> None:
    outcomes = record(peer)["outcomes"]
    column = 2 + PEERS.index(peer)
    for row in rows():
        if not row[column].endswith(UNTRIED):
            assert row[0] in outcomes, f"{row[0]}: neither tried nor said to be untried"
            assert outcomes[row[0]]["yes"] == row[column].startswith("yes"), row[0]


@pytest.mark.parametrize("peer", PEERS)
def test_the_versions_are_those_that_were_tried(peer: str) -> None:
    versions = record(peer)["versions"]
    assert versions.get(peer, versions.get("replay-rec")) in PAGE.read_text()
    assert record(peer)["date"] == "2026-11-27"
    assert versions["torch"].startswith("2.13")


def test_our_models_are_counted() -> None:
    kinds = (getattr(recsys.models, name) for name in dir(recsys.models))
    scorers = {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Scorer)}
    concrete = {kind for kind in scorers if kind.__module__.startswith("recsys.models")}
    (row,) = (row for row in rows() if row[0] == "models that rank a catalogue")
    assert f"yes, {len(concrete)} " in row[1]
