import hashlib
import os
from pathlib import Path

import pytest

from recsys.data.sources.files import PublicFile, data_folder, existing_file, read_tsv, recorded
from recsys.errors import DataError

WHOLE = b"whole"
FILE = PublicFile("shop/log.csv", "https://shop.example", hashlib.sha256(WHOLE).hexdigest())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    (tmp_path / "shop").mkdir()
    return tmp_path


def test_the_default_folder_is_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA", "")
    assert data_folder() == Path.home() / ".cache" / "recsys"


def test_a_missing_file_names_path_origin_and_folder(folder: Path) -> None:
    with pytest.raises(DataError) as error:
        FILE.find()
    for words in (str(folder / "shop/log.csv"), "https://shop.example", "RECSYS_DATA"):
        assert words in str(error.value)


def test_other_bytes_than_the_published_are_refused(folder: Path) -> None:
    path = folder / "shop/log.csv"
    path.write_bytes(WHOLE)
    assert FILE.find() == path
    path.write_bytes(WHOLE + b".")
    with pytest.raises(
        DataError, match=r"log\.csv: sha256 .* is not the published .*; get it again"
    ):
        FILE.find()


def test_a_file_that_the_user_names_is_taken_as_it_is(folder: Path) -> None:
    mine = folder / "mine.csv"
    mine.write_bytes(b"mine")
    with recorded() as inputs:
        assert FILE.find(mine) == mine
    assert inputs == {str(mine): hashlib.sha256(b"mine").hexdigest()}


def test_a_file_must_be_there_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*nowhere$"):
        existing_file(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a folder; name a file"):
        existing_file(tmp_path)


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_bytes(b"a:token\tb:float\n\xff\t1\n")
    with pytest.raises(
        DataError,
        match=r"^.*log\.tsv cannot be read: invalid utf-8 sequence; save it as UTF-8, or .*cp1252$",
    ):
        read_tsv(path)


def test_without_a_home_a_missing_file_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA", "")
    monkeypatch.setattr("os.path.expanduser", os.fspath)  # as where no user is known
    with pytest.raises(DataError, match=r"no file .*shop/log\.csv; get it from"):
        FILE.find()
    with pytest.raises(DataError, match=r"no file .*~/log\.csv"):
        existing_file("~/log.csv")
