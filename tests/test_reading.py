"""Files of a run's folder: what is none is one line, and what they say is taken at its word."""

import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file

from recsys.checkpoints import read_checkpoint
from recsys.cli.compose import compose
from recsys.cli.names import CONF, names
from recsys.errors import ConfigError, RunError
from recsys.reading import (
    ConfigLoader,
    read_config,
    read_json,
    read_table,
    read_tensors,
    read_text,
    reading,
)

READERS: dict[str, Callable[[Path], Any]] = {
    "text": read_text,
    "json": read_json,
    "table": read_table,
    "tensors": read_tensors,
    "checkpoint": read_checkpoint,
}


def written(folder: Path, text: str) -> Path:
    (folder / "config.yaml").write_text(text)
    return folder


def test_a_config_is_values_that_stand_for_themselves(tmp_path: Path) -> None:
    text = "a: {b: [1, 2.5, 1e-3, x, null, true], 2017-10-30: '2017-10-30'}\nc: ???\n"
    config = read_config(written(tmp_path, text))
    day = "2017-10-30"
    assert config == {"a": {"b": [1, 2.5, 0.001, "x", None, True], day: day}, "c": "???"}


CONFIGS = {
    "a: ${b}\nb: 1": r"\$\{b\} is an interpolation; write the value",
    "${b}: 1": r"\$\{b\} is an interpolation",
    "a: ['x${oc.env:HOME}']": "is an interpolation",
    "a: &x [1]\nb: *x": "line 1: an alias; write the value",
    "b: *x": "line 1: an alias",
    "a: 1\nb: !!python/object/apply:os.getcwd []": "line 2: a tag, tag:yaml.org,2002:python/obj",
    "a: !!python/object/apply:pathlib.Path [x]": "line 1: a tag",
    "a: !!set {x}": "line 1: a tag",
    "a: 1\na: 2": "line 1: a name twice",
    "a: 1\nb: {c: 1, d: 2, c: 3}": "line 2: a name twice",
    "1: a\n1: b": "line 1: a name twice",
    "~: 1": "line 1: null is no name",
    "x": "no options",
    "false": "no options",
    "[" * 40 + "]" * 40: "more than 32 levels",
    "- 1": "no options",
    "a: [": "while parsing",
    "--- 1\n--- 2": "expected a single document",
    "? [a]\n: b": "found unhashable key|unhashable",
    "": None,
}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_that_says_something_else(text: str, tmp_path: Path) -> None:
    if (words := CONFIGS[text]) is None:
        assert read_config(written(tmp_path, text)) == {}
        return
    with pytest.raises(RunError, match=rf"config\.yaml is damaged \(.*({words})") as caught:
        read_config(written(tmp_path, text))
    assert "\n" not in str(caught.value)


NUMBERS = """1 -1 +1 1e-3 1E5 1.e5 1.5e3 1.5E+3 -1.5e3 .5 .5e3 .5e-3 -.5 1_000 1_0e3 1__0 1_e3
1_000.5e3 1.5_0 1e3_0 1e 1e+ e5 _1 . + 1. 1._ 0.1.2 0x1F 010 0o10 0b11 1:30 1:30.5 .inf -.INF
.nan inf nan 00 08 12e03"""
WORDS = """yes No on OFF true True TRUE null Null NULL ~ 2017-10-30 2017-10-30T10:00:00
"2017" '1e-3' ??? a:b a_b /a/b.csv [1e3,x] {1e3:x} {1:[]} {true:no}"""
SCALARS = [*NUMBERS.split(), *WORDS.split(), "2017-10-30 10:00:00", "'a: b'", "", "|\n  a\n  b"]


@pytest.mark.parametrize("value", SCALARS)
def test_a_value_is_read_as_omegaconf_reads_it(value: str) -> None:
    text = f"a: {value}"
    expected = OmegaConf.to_container(OmegaConf.create(text))
    assert repr(yaml.load(text, ConfigLoader)) == repr(expected)  # nan is not nan


@pytest.mark.parametrize(
    "path", sorted(CONF.rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_a_file_of_options_is_read_as_omegaconf_reads_it(path: Path) -> None:
    text = path.read_text("utf-8")
    assert yaml.load(text, ConfigLoader) == OmegaConf.to_container(OmegaConf.create(text))


CHOICES = [f"{group}={name}" for group in ("data", "task", "model") for name in names(group)]
CHOICES += [f"experiment={name}" for name in names("experiment")]


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_a_composed_config_is_read_as_omegaconf_reads_it(choice: str) -> None:
    needed = ["feedback=likes"] if choice == "task=align" else []
    text = OmegaConf.to_yaml(compose([choice, *needed]))
    assert yaml.load(text, ConfigLoader) == OmegaConf.to_container(OmegaConf.create(text))


def test_a_config_of_which_each_line_doubles_what_it_holds(tmp_path: Path) -> None:
    lines = [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(RunError, match="an alias"):
        read_config(written(tmp_path, "\n".join(["a0: &a0 x", *lines])))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "a name twice"),
        ('{"a": {"b": 1, "b": 1}}', "a name twice"),
        ("[1]", "list, no object"),
        ("{", "Expecting"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_json_that_is_no_object(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(RunError, match=rf"metrics\.json is damaged \(.*{words}"):
        read_json(path)


def test_a_text_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.reading.LARGEST_TEXT", 1000)
    (tmp_path / "x").write_text("y" * 1001)
    with pytest.raises(RunError, match=r"x is damaged \(1,001 bytes\)"):
        read_text(tmp_path / "x")


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file(reader: str, tmp_path: Path) -> None:
    """A pipe would be waited for, and a device read without an end."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "loop", "device", "nothing"):
        with pytest.raises(RunError, match=f"holds no finished run: there is no {name}"):
            READERS[reader](tmp_path / name)


@pytest.mark.parametrize("reader", sorted(set(READERS) - {"text"}))
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PAR1" * 9, b"\xff\xfe", b"PK\x03\x04"])
def test_what_is_no_such_file(reader: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RunError, match="file is damaged") as caught:
        READERS[reader](tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_folders_whose_names_are_patterns(tmp_path: Path) -> None:
    """A name with brackets is a name, and never that of another file."""
    for name in ("ks=[3]", "ks=3", "*", "a?"):
        folder = tmp_path / name
        folder.mkdir()
        pl.DataFrame({"name": [name]}).write_parquet(folder / "frame.parquet")
        save_file({"x": torch.tensor(len(name))}, folder / "x.safetensors")
    for folder in tmp_path.iterdir():
        table = read_table(folder / "frame.parquet", "name")
        assert table.to_dict(as_series=False) == {"name": [folder.name]}
        assert read_tensors(folder / "x.safetensors")["x"] == len(folder.name)


def test_a_reader_that_panics_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """Of many damaged files some make the native reader print a backtrace before it raises."""
    path = tmp_path / "x.parquet"
    pl.DataFrame({"a": ["x", "y", "x"] * 50, "b": range(150)}).write_parquet(path)
    whole = path.read_bytes()
    for place in range(4, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(RunError):
            read_table(path)
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_a_table_without_a_column(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(RunError, match=r"x\.parquet is damaged \(no column user_id\)"):
        read_table(tmp_path / "x.parquet", "a", "user_id")


class Called:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_checkpoint_runs_nothing_that_it_names(tmp_path: Path) -> None:
    path, marker = tmp_path / "last.ckpt", tmp_path / "called"
    torch.save({"state_dict": {}, "x": Called(marker)}, path)
    with pytest.raises(RunError, match=r"last\.ckpt is damaged .*; remove checkpoints/ to train"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Called(marker)))
    with pytest.raises(RunError, match="is damaged"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_checkpoint_with_a_bit_that_changed(tmp_path: Path) -> None:
    """Which torch itself reads without a word."""
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"x": torch.arange(1000.0)}}, path)
    assert read_checkpoint(path)["state_dict"]["x"].sum() == 499_500
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    place = data.index(torch.arange(1000.0).numpy().tobytes())
    data[place + 2000] ^= 1
    path.write_bytes(data)
    assert largest.file_size == 4000
    with pytest.raises(RunError, match="is not as it was written"):
        read_checkpoint(path)


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    for content in ([1], {"x": 1}, {"state_dict": 3}):
        torch.save(content, tmp_path / "last.ckpt")
        with pytest.raises(RunError, match="no state of a model"):
            read_checkpoint(tmp_path / "last.ckpt")


def test_whatever_goes_wrong_is_one_line() -> None:
    here = Path("here")
    reading_there = reading(here, fault="cannot be shown", remedy="look")
    with pytest.raises(RunError, match=r"here cannot be shown \(a b\); look$"), reading_there:
        raise ValueError("a\n  b")
    with pytest.raises(RunError, match=r"here is damaged \(AssertionError\)"), reading(here):
        raise AssertionError
    with pytest.raises(RunError, match=r"^there: permission denied; get leave"), reading(here):
        raise PermissionError(13, "Permission denied", "there")
    with pytest.raises(ConfigError, match="as it is"), reading(here):
        raise ConfigError("as it is")
    with pytest.raises(KeyboardInterrupt), reading(here):
        raise KeyboardInterrupt
