"""What a folder's files should hold, and what else they may turn out to be."""

import json
from pathlib import Path

import pytest

from recsys.errors import RunError
from recsys.scoring import manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.parquet").write_bytes(bytes(range(100)))
    manifest.write(tmp_path)
    return tmp_path


def test_what_was_written_passes(folder: Path) -> None:
    manifest.check(folder, "a.json", "b.parquet")
    (folder / "notes.txt").write_text("of the user")
    manifest.check(folder, "a.json", "b.parquet")
    manifest_text = json.loads((folder / "manifest.json").read_text())
    empty_object = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert manifest_text["files"]["a.json"] == {"bytes": 2, "sha256": empty_object}
    assert list(manifest_text["files"]) == ["a.json", "b.parquet"]


def test_one_bit_is_another_file(folder: Path) -> None:
    data = bytearray((folder / "b.parquet").read_bytes())
    data[50] ^= 1
    (folder / "b.parquet").write_bytes(data)
    with pytest.raises(RunError, match=r"b\.parquet is not the file that was written; make the"):
        manifest.check(folder)


def test_a_file_that_is_missing_or_not_named(folder: Path) -> None:
    with pytest.raises(RunError, match=r"manifest\.json is damaged \(it lacks files\)"):
        manifest.check(folder, "c.json")
    (folder / "a.json").unlink()
    with pytest.raises(RunError, match=r"a\.json is missing, which manifest\.json names"):
        manifest.check(folder)


@pytest.mark.parametrize("text", ['{"files": []}', "{}", '{"files": {"a.json": 3}}', "[]", "x"])
def test_a_manifest_that_is_none(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json is damaged|not the file that was written"):
        manifest.check(folder, "a.json")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "sub/file", "."])
def test_a_manifest_names_files_of_its_folder_alone(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_text("x")
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("x")
    (folder / "manifest.json").write_text(json.dumps({"files": {name: {}}}))
    with pytest.raises(RunError, match="is missing, which manifest"):
        manifest.check(folder)


def test_a_folder_without_one_passes(tmp_path: Path) -> None:
    manifest.check(tmp_path, "a.json")
