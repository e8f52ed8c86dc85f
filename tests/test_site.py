"""The site is built without a warning, nothing in it leads nowhere, and notebooks run."""

import ast
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


class Nav(yaml.SafeLoader):
    """Reads `mkdocs.yml`, whatever its tags are."""


def nav() -> list[str]:
    """The pages of the navigation, in order."""
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=Nav)

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in pages(part)]

    return pages(config["nav"])


def test_every_page_of_docs_is_in_the_navigation() -> None:
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert pages - set(nav()) == set()
    assert len(nav()) == len(set(nav()))


def test_every_public_package_has_its_names_on_the_site() -> None:
    (packages,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "docs/_site/pages.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGES"
    )
    assert [f"api/{package}.md" for package in packages] == [
        page for page in nav() if page.startswith("api/")
    ]


class Page(HTMLParser):
    """What a page points at, what it fetches, and the places in it that can be pointed at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.fetched.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.fetched.append(values["href"])


def broken(pages: dict[Path, Page], folder: Path) -> list[str]:
    """Links and pictures that lead nowhere, and what would be fetched from elsewhere."""
    faults = []
    for path, page in pages.items():
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.fetched and parts.scheme != "data":
                    faults.append(f"{path.relative_to(folder)} fetches {link}")
                continue
            start = folder if parts.path.startswith("/") else path.parent
            target = start / unquote(parts.path).lstrip("/") if parts.path else path
            target = target.resolve() / "index.html" if target.is_dir() else target.resolve()
            known = target not in pages or unquote(parts.fragment) in {"", *pages[target].anchors}
            if not target.is_file() or not known:
                faults.append(f"{path.relative_to(folder)}: {link}")
    return faults


def read(folder: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path) for path in folder.rglob("*.html")}


def test_what_leads_nowhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#here">b</a><a href="b.html#there">b</a>'
        '<a href="#top">up</a><img src="missing.svg"><script src="https://cdn.example/x.js"></script>'
        '<a href="https://example.org">elsewhere</a>'
    )
    (tmp_path / "b.html").write_text('<h2 id="here">B</h2><a href="../gone.html">gone</a>')
    assert sorted(broken(read(tmp_path), tmp_path)) == [
        "b.html: ../gone.html",
        "index.html fetches https://cdn.example/x.js",
        "index.html: b.html#there",
        "index.html: missing.svg",
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder.resolve()


@pytest.mark.slow
def test_nothing_of_the_site_leads_nowhere(site: Path) -> None:
    pages = read(site)
    assert len(pages) >= len(nav())
    assert broken(pages, site) == []


@pytest.mark.slow
def test_public_names_are_there_with_their_examples(site: Path) -> None:
    text = (site / "api/recsys.tasks.html").read_text()
    assert 'id="recsys.tasks.global_time"' in text
    examples = (site / "api/recsys.evaluation.html").read_text()
    assert '<span class="gp">&gt;&gt;&gt; </span><span class="n">auroc</span>' in examples
    assert "Kang" in (site / "api/recsys.models.html").read_text()  # the head of SASRec's file


@pytest.mark.slow
def test_the_search_knows_the_pages(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    assert {"index.html", "zoo.html", "quickstart.html"} <= {
        entry["location"].partition("#")[0] for entry in index["docs"]
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_kept_without_its_output(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    lines = [line for cell in code for line in cell["source"] if line.strip()]
    assert len(lines) < (15 if path.stem == "three_models" else 25)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    """In a process of its own: its client warns of what is not ours."""
    code = (
        "import sys, nbformat; from nbclient import NotebookClient\n"
        "book = nbformat.read(sys.argv[1], 4)\n"
        "NotebookClient(book, timeout=600, kernel_name='python3').execute(cwd=sys.argv[2])\n"
        "outputs = [output for cell in book.cells for output in cell.get('outputs', [])]\n"
        "assert all(output.output_type != 'error' for output in outputs)\n"
        "print(sum('text/html' in output.get('data', {}) for output in outputs))\n"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path)]
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `!recsys`
    environment = os.environ | {"PATH": search}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 2
