"""What the site has beside the pages of `docs/`: pages of the repository, and the public names.

A hook of MkDocs. Links are written from file to file, as a code host follows them; those that
leave `docs/` are turned here to where the site has the file. A file that a page links to and that
is no page itself, such as a record, goes into the site as it is. A notebook becomes a page. A page
of public names is made for each package, of what its `__init__.pyi` lists.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "recsys",
    "recsys.interactive",
    "recsys.data",
    "recsys.log",
    "recsys.tasks",
    "recsys.models",
    "recsys.nn",
    "recsys.training",
    "recsys.evaluation",
    "recsys.retrieval",
    "recsys.scoring",
)
PLACES = {
    "README.md": "index.md",
    "models/README.md": "zoo.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
}
"""Where the site has pages of the repository that would stand elsewhere, or nowhere."""

LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[^)]*\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository, what pages link to, notebooks, and the public names."""
    for path in sorted(ROOT.glob("docs/notebooks/*.ipynb")):
        place = place_of(path.relative_to(ROOT).as_posix())
        files.append(File.generated(config, place, content=notebook_page(path)))
    for path in sorted(repository_pages()):
        files.append(_as_it_is(path, config))
    for path in sorted(linked(files)):
        files.append(_as_it_is(path, config))
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=names_page(package)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as the site needs them."""
    here = page.file.src_uri
    origin = origin_of(here)
    if origin is None:
        return markdown

    def turned(link: re.Match[str]) -> str:
        target = target_of(link[0], origin)
        return posixpath.relpath(place_of(target), posixpath.dirname(here)) if target else link[0]

    return LINK.sub(turned, markdown)


def repository_pages() -> set[str]:
    """Pages outside `docs/`, as paths from the root."""
    readmes = (ROOT / "benchmarks").rglob("README.md")
    return {*PLACES, *(path.relative_to(ROOT).as_posix() for path in readmes)}


def linked(files: Files) -> set[str]:
    """Files outside `docs/` that a page links to and that are no pages."""
    origins = ((file, origin_of(file.src_uri)) for file in files.documentation_pages())
    targets = {
        target_of(link, origin)
        for file, origin in origins
        if origin is not None
        for link in LINK.findall(file.content_string)
    }
    outside = {target for target in targets if target and not target.startswith("docs/")}
    return {path for path in outside - repository_pages() if (ROOT / path).is_file()}


def origin_of(place: str) -> str | None:
    """The file of a page of the site, as a path from the root; none of a page that is made."""
    if place.startswith(("api/", "notebooks/")):
        return None
    places = {place_of(path): path for path in repository_pages()}
    return places.get(place, f"docs/{place}")


def place_of(path: str) -> str:
    """Where the site has a file of the repository."""
    return PLACES.get(path, path.removeprefix("docs/").replace(".ipynb", ".md"))


def target_of(link: str, origin: str) -> str | None:
    """The file that a link leads to; none where it is not of this repository."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    return None if ":" in link or not (ROOT / path).exists() else path


def notebook_page(path: Path) -> str:
    """A notebook as a page, with the file itself to take along."""
    cells = json.loads(path.read_text())["cells"]
    texts = {"markdown": "{}", "code": "```python\n{}\n```"}
    parts = [texts[cell["cell_type"]].format("".join(cell["source"])) for cell in cells]
    first, *rest = parts
    return "\n\n".join([first, f"[The notebook]({path.name}) to run.", *rest]) + "\n"


def names_page(package: str) -> str:
    """A page of a package's public names, for mkdocstrings to fill."""
    rooms = [other for other in PACKAGES if other not in (package, "recsys")]
    shown = {source: room for room in rooms for source in public_names(room)}
    lines = [f"# {package}", "", _docstring(package), ""]
    for source, name in public_names(package).items():
        if package == "recsys" and source in shown:
            lines += [f"- `recsys.{name}` is [`{shown[source]}.{name}`][{shown[source]}.{name}]"]
        else:
            lines += [f"::: {package}.{name}", ""]
    return "\n".join(lines) + "\n"


def public_names(package: str) -> dict[str, str]:
    """The public names of a package, by where they are defined."""
    stub = ROOT / package.replace(".", "/") / "__init__.pyi"
    names = {}
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            parent = package if node.level == 1 else ""
            for alias in node.names:
                names[f"{parent}.{node.module}.{alias.name}".lstrip(".")] = alias.name
    return names


def _docstring(package: str) -> str:
    source = ROOT / package.replace(".", "/") / "__init__.py"
    return ast.get_docstring(ast.parse(source.read_text())) or ""


def _as_it_is(path: str, config: MkDocsConfig) -> File:
    return File.generated(config, place_of(path), abs_src_path=str(ROOT / path))
