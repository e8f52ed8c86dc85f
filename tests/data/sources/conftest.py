import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from recsys.data.sources.files import PublicFile

Publish = Callable[[ModuleType, str, str], None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a small file in the place of a source's published one."""
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))

    def put(source: ModuleType, name: str, content: str) -> None:
        file = getattr(source, name)
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        monkeypatch.setattr(source, name, PublicFile(file.path, file.origin, digest))

    return put
