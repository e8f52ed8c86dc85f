"""Shape checks for the whole package, and what the markers `data` and `gpu` need."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("recsys", "beartype.beartype")


@pytest.fixture(autouse=True)
def _cache_of_its_own(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No test reads or writes the user's own data folder, except those marked `data`."""
    if request.node.get_closest_marker("data") is None:
        monkeypatch.setenv("RECSYS_DATA", str(tmp_path_factory.getbasetemp() / "recsys_data"))


@pytest.fixture
def public_data() -> Path:
    """The folder of public logs, for tests marked `data`."""
    folder = Path(os.environ.get("RECSYS_DATA", ""))
    if not os.environ.get("RECSYS_DATA") or not folder.is_dir():
        pytest.skip("RECSYS_DATA does not name the folder of public logs")
    return folder


@pytest.fixture
def cuda() -> str:
    """The device of tests marked `gpu`."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"
