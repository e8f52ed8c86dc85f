"""The pages for readers: what they point at is there, and what they list is all there is."""

import json
import re
import tomllib
from pathlib import Path
from pkgutil import resolve_name
from statistics import median

import pytest
import yaml

import recsys

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "models/README.md"])
DECISIONS = ROOT / "docs/decisions"
RECORDS = ROOT / "benchmarks/speed/results"
TOPS = {"recsys", "models", "data", "conf", "benchmarks", "tests", "docs"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def words_in_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\s]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    inner = [link for link in links if not re.match(r"https?:", link)]
    assert [link for link in inner if not (page.parent / link).exists()] == []


@each_page
def test_files_that_are_named_are_there(page: Path) -> None:
    """Such as `recsys/files.py`; capitals and brackets stand for any name."""
    paths = [word for word in words_in_code(page) if word.partition("/")[0] in TOPS and "/" in word]
    named = [path for path in paths if not re.search(r"[A-Z<*{]", path.removesuffix("README.md"))]
    generated = ("benchmarks/gpu/results/",)
    assert [
        path for path in named if not (path.startswith(generated) or (ROOT / path).exists())
    ] == []


@each_page
def test_names_of_the_package_are_its_own(page: Path) -> None:
    """Such as `recsys.nn.TweedieHead`; what follows a bracket is how it is called."""
    targets = {word.partition("(")[0] for word in words_in_code(page) if word.startswith("recsys.")}
    names = {name for name in targets if re.fullmatch(r"recsys(\.\w+)+", name)} - {"recsys.json"}
    for name in sorted(names):
        resolve_name(name)


def test_every_room_stands_in_the_layout() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rooms = [p.parent for p in (ROOT / "recsys").glob("*/__init__.py") if not p.parent.is_symlink()]
    assert [room.name for room in rooms if f"| `recsys/{room.name}/` |" not in page] == []
    families = {path.parent.name for path in (ROOT / "models").glob("*/__init__.py")}
    (row,) = re.findall(r"^\| `models/` \| families: `([^`]+)`", page, flags=re.MULTILINE)
    assert set(row.split()) == families


def test_the_order_of_imports_is_that_which_is_held() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    (line,) = re.findall(r"^interactive → .*", page, flags=re.MULTILINE)
    rooms_shown = [set(re.findall(r"\w+", rooms)) for rooms in line.split("→")]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [set(re.findall(r"\w+", layer)) for layer in contracts["contracts"][0]["layers"]]
    assert rooms_shown[:-1] == layers[: len(rooms_shown) - 1]
    assert rooms_shown[-1] == {"ground"}


def test_every_decision_is_listed() -> None:
    pages = {path.name for path in DECISIONS.glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", (DECISIONS / "README.md").read_text())) == pages
    for page in pages:
        headings = re.findall(r"^## (.*)", (DECISIONS / page).read_text(), flags=re.MULTILINE)
        assert headings == ["The situation", "The decision", "What it costs", "What was measured"]


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}  # type: ignore[index]
    page = (DECISIONS / "packages.md").read_text()
    assert (
        set(re.findall(r"^\| ([a-z][\w-]+) \|", page, flags=re.MULTILINE)) - {"package"} == needed
    )
    for extra in set(project["optional-dependencies"]):
        assert f"`{extra}`" in page


def seconds(record: str, side: str, clock: str = "wall") -> float:
    sides = json.loads((RECORDS / record).read_text())["sides"]
    return median(sides[side][clock]["values"])


def ratio(record: str, name: str, log: str | None = None) -> float:
    record_of_sides = json.loads((RECORDS / record).read_text())
    return median(
        (record_of_sides["logs"][log] if log else record_of_sides)["ratios"][name]["wall"]["values"]
    )


def test_figures_of_decisions_are_those_of_the_records() -> None:
    page = {path.stem: path.read_text() for path in DECISIONS.glob("*.md")}
    sides = {"product": "11.0", "product_in_place": "2.79", "exact": "2.64", "faiss_flat": "2.41"}
    for side, ratio_text in sides.items():
        digits = len(ratio_text.partition(".")[2])
        assert f"{seconds('topk.json', side):.{digits}f}" == ratio_text
        assert f"| {ratio_text} |" in page["exact-retrieval"]
    loading = {"load": "2.6", "load_unhashed": "1.3", "unchecked": ".5", "read": "1.3"}
    for side, ratio_text in loading.items():
        assert f"{seconds('loading.json', side, 'cpu'):.1f}".lstrip("0") == ratio_text
        assert f"| {ratio_text} |" in page["no-pickle"]
    ratios = {
        ("prepare.json", "pandas_lists/ours"): "4.2",
        ("prepare.json", "pandas_arrays/ours"): "2.3",
        ("sasrec.json", "rectools/ours, ml100k"): "3.1",
        ("sasrec.json", "rectools/ours, long"): "5.2",
        ("dnntsp.json", "dc plain/dc ours"): "12",
        ("dnntsp.json", "tafeng plain/tafeng ours"): "14",
        ("lmrec.json", "padded/packed"): "3.7",
        ("evaluation.json", "recbole/ours"): "4.3",
    }
    for (record, name), ratio_text in ratios.items():
        digits = len(ratio_text.partition(".")[2])
        assert f"{ratio(record, name):.{digits}f}" == ratio_text, name
        assert (
            ratio_text in page["full-catalogue" if record == "evaluation.json" else "flat-tensors"]
        )


LABELS = {
    "at most": "`AtMost({})` of a category",
    "at least": "`AtLeast({})` of own brands",
    "boost": "`Boost({})` of own brands",
    "mmr": "`MMR({})`",
}


def label_of(model: str) -> str:
    """What a row of the table of rules is called."""
    _, _, rule = model.partition(", ")
    if ", " in rule:
        return "`AtLeast(5)`, then `AtMost(2)`"
    kind, _, number = rule.lower().rpartition(" ")
    return LABELS[kind].format(number) if rule else {"Popularity": "popularity"}.get(model, model)


def test_the_cost_of_rules_is_that_of_the_record() -> None:
    page = (ROOT / "docs/python.md").read_text()
    record = json.loads((ROOT / "benchmarks/reranking/results/complete_journey.json").read_text())
    assert f"{record['users']:,} test users" in page
    for model, reached in record["models"].items():
        names = ("diversity@10", "own_brands@10", "recall@10", "ndcg@10")
        figures = " | ".join(f"{reached[n]:.4f}".removeprefix("0") for n in names)
        row = f"| {label_of(model)} | {figures} | "
        if "ndcg@10 difference" in reached:
            row += f"{reached['ndcg@10 difference']['difference']:.4f}".replace("0.", ".")
        assert row in page


def test_the_version_is_one() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", changes, flags=re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert versions[0] == (recsys.__version__, citation["date-released"])
    assert citation["version"] == recsys.__version__
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert [set(author) for author in citation["authors"]] == [{"name"}]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == recsys.__version__
    assert citation["license"] == project["license"]
