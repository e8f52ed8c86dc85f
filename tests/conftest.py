"""Shape checks for the whole package, and what tests marked `data` and `gpu` need."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import beartype.typing  # noqa: F401  # named in CHECK
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import recsys  # noqa: F401  # before torch: it sets how threads wait

# The tensors of tests are small, and the other cores have tests of their own to run.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Methods are checked one by one, and there beartype does not know what Self is.
SELF_IS_ANYTHING = "beartype.FrozenDict({beartype.typing.Self: object})"
CHECK = f"beartype.beartype(conf=beartype.BeartypeConf(hint_overrides={SELF_IS_ANYTHING}))"
# Of packages with tensors in their signatures: each call of what is checked takes some 30 µs.
TENSORS = ("batch", "evaluation", "models", "nn", "retrieval", "scoring.scorer", "training")
install_import_hook([f"recsys.{name}" for name in TENSORS], CHECK)

# A slow machine is no failure.
settings.register_profile("recsys", deadline=None)
settings.load_profile("recsys")

PUBLIC_DATA = os.environ.get("RECSYS_DATA")


@pytest.fixture(scope="session", autouse=True)
def _folder_for_prepared_logs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests leave the user's own cache alone."""
    os.environ["RECSYS_CACHE"] = str(tmp_path_factory.mktemp("recsys_cache"))
    if PUBLIC_DATA is None:
        os.environ["RECSYS_DATA"] = str(tmp_path_factory.mktemp("recsys_data"))


@pytest.fixture
def public_data() -> Path:
    """The folder of public logs, for tests marked `data`."""
    if PUBLIC_DATA is None or not Path(PUBLIC_DATA).is_dir():
        pytest.skip("RECSYS_DATA does not name the folder of public logs")
    return Path(PUBLIC_DATA)


@pytest.fixture
def cuda() -> str:
    """The device of tests marked `gpu`."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Calls the command line: exit code, standard output, standard error."""
    from recsys.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["recsys"])
        code = main.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@contextmanager
def _disk_of(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def disk_of() -> Callable[[int], AbstractContextManager[None]]:
    """A block as if the disk had no room for a file of more bytes."""
    return _disk_of
