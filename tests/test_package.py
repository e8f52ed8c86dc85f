"""The package as a whole: its public names, its links, its wheel, and how lightly it starts."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import recsys
import recsys.data
import recsys.models
from recsys import errors

ROOT = Path(__file__).parent.parent
LINKS = ("models", "data", "conf")
INNER = [m.name for m in pkgutil.walk_packages(recsys.__path__, "recsys.") if m.ispkg]
PACKAGES = [recsys, *(p for p in map(importlib.import_module, INNER) if hasattr(p, "__all__"))]
PARTS = {  # of models: files of families that hold none
    "recsys.models.graphs.dynamic_graph",
    "recsys.models.language.decoders",
    "recsys.models.users.event_fields",
}


def python(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in PACKAGES for name in package.__all__],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_public_names_resolve(package: ModuleType, name: str) -> None:
    value = getattr(package, name)
    home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "")
    assert name == "__version__" or home.startswith(f"{package.__name__}.")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_public_names_are_listed_and_no_others(package: ModuleType) -> None:
    namespace: dict[str, object] = {}
    exec(f"from {package.__name__} import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(package.__all__)
    assert dir(package) == package.__all__
    with pytest.raises(AttributeError, match="Popularty"):
        _ = package.Popularty


def test_nothing_public_is_named_like_a_module_beside_it() -> None:
    """Where the module was imported, the name would be the module's."""
    for package in PACKAGES:
        modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        public = set(package.__all__)
        assert {
            name for name in public & modules if not inspect.ismodule(getattr(package, name))
        } == set()


def test_every_model_file_is_in_the_zoo() -> None:
    homes = {getattr(recsys.models, name).__module__ for name in recsys.models.__all__}
    paths = (path.relative_to(ROOT) for path in (ROOT / "models").rglob("[!_]*.py"))
    files = {".".join(("recsys", *path.with_suffix("").parts)) for path in paths}
    assert files - homes == PARTS
    assert homes <= files


def test_zoo_and_configs_and_table_agree() -> None:
    """A target is `recsys.models.EASE`, a row of the table opens with `EASE`.

    Parts of a model are named by its file, `recsys.models.language.Decoder`.
    """
    zoo = set(recsys.models.__all__)
    configs = "".join(path.read_text() for path in (ROOT / "conf/model").glob("*.yaml"))
    assert set(re.findall(r"_target_: recsys\.models\.(\w+)$", configs, flags=re.MULTILINE)) == zoo
    table = (ROOT / "models/README.md").read_text()
    assert set(re.findall(r"^\| *\[?`(\w+)`", table, flags=re.MULTILINE)) == zoo


def test_starts_without_the_heavy_libraries() -> None:
    code = (
        "import recsys, recsys.models, recsys.data, sys;"
        "heavy = {'torch', 'polars', 'numpy', 'pytorch_lightning', 'faiss', 'torch_geometric'};"
        "print(heavy & set(sys.modules))"
    )
    assert python(code, ROOT).stdout.strip() == "set()"


@pytest.mark.parametrize("link", LINKS)
def test_linked_packages_have_one_name(link: str) -> None:
    process = python(f"import {link}", ROOT)
    assert f"ImportError: import recsys.{link}, not {link}" in process.stderr


@pytest.mark.parametrize("lost", LINKS)
def test_a_checkout_without_its_links_says_what_to_do(tmp_path: Path, lost: str) -> None:
    (tmp_path / "recsys").mkdir()
    for name in ("__init__.py", "__init__.pyi", "threads.py"):
        shutil.copy(ROOT / "recsys" / name, tmp_path / "recsys")
    for link in LINKS:
        if link == lost:
            (tmp_path / "recsys" / link).write_text(f"../{link}")
        else:
            (tmp_path / "recsys" / link).mkdir()
    process = python("import recsys", tmp_path, PYTHONPATH=str(tmp_path))
    assert f"ImportError: recsys/{lost} is not a folder" in process.stderr
    assert "core.symlinks true" in process.stderr


def test_errors_are_one_tree_and_print_their_message() -> None:
    tree = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert all(issubclass(kind, errors.RecsysError) for kind in tree)
    assert issubclass(errors.CatalogueError, ValueError)
    message = "k=500 exceeds the 312 items in the index; lower k or rebuild the index"
    assert {str(kind(message)) for kind in tree} == {message}


def test_no_path_is_read_as_a_pattern() -> None:
    """As polars does unless it is told not to: `ks=[3]` is then the folder `ks=3`."""
    readers = {"read_parquet", "read_csv", "scan_parquet", "scan_csv", "read_ndjson", "scan_ndjson"}
    problems = []
    for folder in ("recsys", *LINKS[:2], "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in readers:
                    problems.append((path, call))
    ours = [(p, c) for p, c in problems if getattr(c.func.value, "id", "") == "pl"]
    assert len(ours) > 10
    for path, call in ours:
        if call.func.attr == "read_ndjson":  # has no such option, and takes an open file
            assert [argument.id for argument in call.args] == ["file"], f"{path}:{call.lineno}"
            continue
        globs = [ast.unparse(k.value) for k in call.keywords if k.arg == "glob"]
        # An address such as `s3://log/*.parquet` is expanded where the files are.
        assert globs in (["False"], ["is_far"]), f"{path}:{call.lineno} may read another file"


def shipped(root: Path) -> set[str]:
    """The package's files below a folder that holds `recsys`, through its links."""
    kinds = (".py", ".pyi", ".yaml", ".typed", ".jinja")
    return {
        str((Path(folder) / name).relative_to(root))
        for folder, _, names in os.walk(root / "recsys", followlinks=True)
        for name in names
        if name.endswith(kinds)
    }


@pytest.mark.slow
def test_wheel_built_through_the_sdist_holds_the_tree(tmp_path: Path) -> None:
    source, dist, site = tmp_path / "source", tmp_path / "dist", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("recsys", *LINKS):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=unwanted)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)]
    subprocess.run(build, check=True, capture_output=True)

    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        assert not [member.name for member in sdist if member.issym()]
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        wheel.extractall(site)
        assert {name.partition("/")[0] for name in wheel.namelist()} == {
            "recsys",
            f"recsys-{recsys.__version__}.dist-info",
        }
    assert shipped(site) == shipped(ROOT)

    code = "import recsys, recsys.models; print(recsys.__file__, recsys.models.__file__)"
    process = python(code, tmp_path, PYTHONPATH=str(site))
    assert process.stdout.split() == [
        str(site / "recsys/__init__.py"),
        str(site / "recsys/models/__init__.py"),
    ]


SOURCES = [p for folder in ("recsys", *LINKS[:2]) for p in sorted((ROOT / folder).rglob("*.py"))]
CLASSES = [
    pytest.param(node, id=f"{path.stem}.{node.name}")
    for path in SOURCES
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.ClassDef)
]


def attributes_set(of: ast.AST) -> set[str]:
    """The attributes of `self` that a function sets."""
    return {
        node.attr
        for node in ast.walk(of)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value) == "self"
    }


@pytest.mark.parametrize("kind", CLASSES)
def test_what_an_object_holds_is_in_its_constructor_or_declared(kind: ast.ClassDef) -> None:
    declared = {ast.unparse(part.target) for part in kind.body if isinstance(part, ast.AnnAssign)}
    functions = [part for part in kind.body if isinstance(part, ast.FunctionDef)]
    for function in functions:
        if function.name == "__init__":
            declared |= attributes_set(function)
    for function in functions:
        assert attributes_set(function) <= declared, function.name


def test_no_module_remembers_what_it_was_asked() -> None:
    """What is computed once is held by the object that it was computed of."""
    pattern = re.compile(r"weakref|lru_cache|@cache\b|^\s+global ", re.MULTILINE)
    assert not [path for path in SOURCES if pattern.search(path.read_text("utf-8"))]
