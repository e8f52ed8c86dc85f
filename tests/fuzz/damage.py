"""Damages the folders of runs, one after the other, and asks them everything.

    python tests/fuzz/damage.py make FOLDER [RUN …]   # trains the runs that are damaged
    python tests/fuzz/damage.py ask FOLDER 0 100      # the cases 0 .. 99, each a line

A case is a function of its number. A line is the case, the run, the file, what was done to it, and
of every command `fine`, `refused` or, which must not be, `broken` with the reason. A process that
dies says with its last line at which case. Not run under pytest, whose checks of arguments would
stand before ours.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from safetensors.numpy import load_file, save_file

import recsys
from recsys.cli import main
from recsys.report import prediction_page, ranking_page
from recsys.scoring import manifest

USERS, ITEMS = 24, 20
SMALL = ["trainer.max_epochs=1", "trainer.monitor=ndcg@5", "device=cpu"]
BERT = ["model.encoder.embedding_dim=8", "model.encoder.ffn_dim=8", "model.encoder.num_layers=1"]
WORDS = ["model.decoder.embedding_dim=16", "model.decoder.ffn_dim=16", "model.decoder.num_layers=1"]
WORDS += ["model.decoder.vocab_size=300", "model.language.row_length=32"]
LAPSE = ["task.labels.lapse.train=['2026-03-15']", "task.labels.lapse.test='2026-03-20'"]
LAPSE += ["task.labels.lapse.horizon_days=4", "task.folds={num_folds: 2, repeats: 1}"]
RUNS: dict[str, list[str]] = {
    "popularity": ["model=popularity", "+model@baselines.top=personal_top"],
    "item_knn": ["model=item_knn"],
    "text_tfidf": ["model=text_tfidf"],
    "up_cf": ["model=up_cf"],
    "tifuknn": ["model=tifuknn"],
    "ials": ["model=ials", "model.embedding_dim=4", "retrieval=exact"],
    "bpr_mf": ["model=bpr_mf", "model.embedding_dim=4", *SMALL],
    "gloie": [
        "model=gloie",
        "model.embedding_dim=8",
        "model.alike.localities=[1,5]",
        "model.frequency.personal=true",
        *SMALL,
    ],
    "sasrec": ["model=sasrec", "model.embedding_dim=8", *SMALL],
    "shopperbert": ["model=shopperbert", "model.attributes=[kind]", *BERT, *SMALL],
    "lmrec": ["model=lmrec", "model.template.event_columns=[said]", *WORDS, *SMALL],
    "hybrid": [
        *("model=hybrid", "+model@model.members.a=item_knn", "+model@model.members.b=markov"),
        *("+model.weights.a=1.0", "+model.weights.b=0.5"),
    ],
    "labels": ["task=lapse", *LAPSE, "model=logistic_regression"],
}


def log() -> pl.DataFrame:
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user:02}", int((user + step) % ITEMS), f"2026-03-{day + 1:02}")
        for user in range(USERS)
        for day, step in enumerate(generator.integers(5, size=14 + 14 * (user % 2)))
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return frame.with_columns(
        text=pl.format("thing {} of {}", "item_id", pl.col("item_id") % 3),
        kind=pl.format("kind {}", pl.col("item_id") % 4),
        said=pl.when(pl.col("item_id") % 5 == 0).then(pl.lit("cheap")),
    )


def command(place: Path, name: str, folder: Path) -> list[str]:
    options = [] if name == "labels" else ["task.ks=[5]"]
    path = (place / "log.csv").resolve()
    start = ["train", "data=table", f"data.path={path}", "data.columns.text=text"]
    return [*start, *options, *RUNS[name], f"hydra.run.dir={folder}"]


def make(place: Path, names: Iterable[str]) -> None:
    """The log and the runs."""
    place.mkdir(parents=True, exist_ok=True)
    log().write_csv(place / "log.csv")
    for name in names:
        sys.argv = ["recsys"]
        assert main.main(command(place, name, place / "runs" / name)) == 0, name


# What is done to a file. Each takes the path and a source of chance, and says what it did.


def flipped(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 3, 30])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return "bits flipped"


def cut(path: Path, chance: random.Random) -> str:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])
    return "cut"


def emptied(path: Path, chance: random.Random) -> str:
    path.write_bytes(b"")
    return "emptied"


def zeroed(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data))
    length = chance.randrange(1, len(data) - start + 1)
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    return "zeroed"


def noise(path: Path, chance: random.Random) -> str:
    path.write_bytes(chance.randbytes(chance.choice([1, 8, 100, 5000])))
    return "noise"


def swapped(path: Path, chance: random.Random) -> str:
    others = [p for p in path.parent.iterdir() if p.is_file() and p != path]
    if others:
        path.write_bytes(chance.choice(others).read_bytes())
    return "another file of the folder"


def of_another_run(path: Path, chance: random.Random) -> str:
    others = sorted(PLACE.glob(f"runs/*/**/{path.name}"))
    path.write_bytes(chance.choice(others).read_bytes())
    return "the file of another run"


def folder(path: Path, chance: random.Random) -> str:
    path.unlink()
    path.mkdir()
    return "a folder"


def link(path: Path, chance: random.Random) -> str:
    path.unlink()
    path.symlink_to(chance.choice([path, "/dev/null", "/", "/nowhere", "/etc/hostname"]))
    return f"a link to {os.readlink(path)}"


def missing(path: Path, chance: random.Random) -> str:
    path.unlink()
    return "missing"


def pipe(path: Path, chance: random.Random) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a pipe"


ANY = [flipped, flipped, cut, emptied, zeroed, noise, swapped, of_another_run, folder, link]
ANY += [missing, pipe]


def other_tensors(path: Path, chance: random.Random) -> str:
    """Tensors with other numbers, types, shapes or names."""
    tensors = load_file(path)
    name = chance.choice(sorted(tensors))
    array = tensors[name]
    how = chance.choice(["number", "number", "numbers", "type", "shape", "name", "gone", "more"])
    if how == "number" and array.size:
        array = array.copy()
        extremes = [-1, 2**31, -(2**63), 2**63 - 1, array.size, ITEMS, ITEMS + 1, USERS]
        value = chance.choice(extremes)
        if array.dtype.kind == "f":
            value = chance.choice([np.nan, np.inf, 1e38, -1e38, 0.0])
        with np.errstate(all="ignore"):
            array.flat[chance.randrange(array.size)] = np.array(value).astype(array.dtype)
    elif how == "numbers":
        array = np.frombuffer(chance.randbytes(array.nbytes), array.dtype).reshape(array.shape)
    elif how == "type":
        with np.errstate(all="ignore"):
            array = array.astype(chance.choice(["f4", "f8", "i1", "i4", "i8", "u1", "?", "f2"]))
    elif how == "shape":
        flat = array.reshape(-1)
        shapes = [flat[: flat.size // 2], flat[None], np.repeat(flat, 2), flat[:0], flat.sum()]
        array = np.asarray(chance.choice(shapes))
    tensors[name] = np.ascontiguousarray(array)
    if how in ("name", "gone"):
        del tensors[name]
    if how in ("name", "more"):
        made_up = ["score", "forward", "x", "training", "_buffers", f"{name}.x", "fit"]
        tensors[chance.choice(made_up)] = array
    save_file(tensors, path)
    return f"tensor {name}: another {how}"


def other_header(path: Path, chance: random.Random) -> str:
    """A safetensors header that says what is not so."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = chance.choice([n for n in header if n != "__metadata__"])
    told = header[name]
    match chance.choice(["dtype", "shape", "offsets", "length", "twice", "text", "metadata"]):
        case "dtype":
            told["dtype"] = chance.choice(["F32", "I64", "F8_E4M3", "BOOL", "X", "U64", "BF16", 3])
        case "shape":
            shapes: list[Any] = [[2**62, 4], [-1], [0], "x", [2**64], None, [[1]], [1] * 70]
            told["shape"] = chance.choice(shapes)
        case "offsets":
            ends: list[Any] = [[0, 2**63], [8, 0], [-8, 8], [0], None, [1, len(body)], [0, 1e9]]
            told["data_offsets"] = chance.choice(ends)
        case "length":
            length = chance.choice([0, 2**63, 2**40, length - 1, length + 1, len(data)])
            path.write_bytes(struct.pack("<Q", length) + data[8:])
            return "header of another length"
        case "twice":
            header[f"{name} "] = told
        case "text":
            text = chance.choice([b"{", b"[]", b"{}", b"null", b'{"a":' * 5000, b"\xff\xfe"])
            path.write_bytes(struct.pack("<Q", len(text)) + text + body)
            return "header of other text"
        case "metadata":
            header["__metadata__"] = chance.choice([{"a": 1}, "x", {"format": "pt" * 1000}])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return f"header of {name} changed"


def other_table(path: Path, chance: random.Random) -> str:
    """Parquet with other columns, types or rows."""
    frame = pl.read_parquet(path)
    name = chance.choice(frame.columns)
    how = chance.choice(["type", "type", "null", "twice", "none", "gone", "name", "nested", "more"])
    if how == "type":
        numbers = pl.int_range(len(frame), eager=True).alias(name)
        kinds = [pl.String, pl.Int8, pl.Float64, pl.Float32, pl.UInt64, pl.Boolean, pl.Binary]
        kind = chance.choice(kinds)
        text = numbers.cast(pl.String)
        frame = frame.with_columns(
            (text if kind in (pl.String, pl.Binary) else numbers).cast(kind, strict=False)
        )
    elif how == "null":
        frame = frame.with_columns(pl.lit(None).alias(name))
    elif how == "twice":
        frame = pl.concat([frame, frame[: max(1, len(frame) // 2)]])
    elif how == "none":
        frame = frame.clear()
    elif how == "gone":
        frame = frame.drop(name)
    elif how == "name":
        other = chance.choice(["", "x" * 1000, "\x1b[31m", "row", "_row"])
        frame = frame.rename({name: other if other not in frame.columns else "x"})
    elif how == "nested":
        frame = frame.with_columns(pl.struct(pl.lit([1, 2]).alias("a")).alias(name))
    else:
        frame = frame.with_columns(pl.lit("[/blue]").alias(chance.choice(["title", "text", "x"])))
    frame.write_parquet(path)
    return f"column {name}: {how}"


VALUES: list[Any] = [None, True, -1, 0, 2**70, 1e308, float("nan"), "", "[/blue]", "\ud800\x1b[2J"]
VALUES += [[], {}, [[]], {"_target_": "os.getcwd"}, "${x}", [1, "a"], "x" * 10000, "../..", "/"]


def changed(value: Any, chance: random.Random) -> Any:
    """A value, or one in it, that is another."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        return [*value[:place], changed(value[place], chance), *value[place + 1 :]]
    return chance.choice(VALUES)


def other_json(path: Path, chance: random.Random) -> str:
    found = json.loads(path.read_text())
    text = json.dumps(changed(found, chance))
    texts = [text] * 6 + ["[" * 100_000, "{" + '"a":1,' * 3 + '"a":2}', "NaN", '{"a":' * 900]
    path.write_text(chance.choice(texts))
    return "other values"


def other_yaml(path: Path, chance: random.Random) -> str:
    found = yaml.safe_load(path.read_text())
    text = yaml.safe_dump(changed(found, chance))
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)
    )
    texts = [text] * 6 + ["[" * 2000, "a: 1\na: 2\n", bomb, "!!python/object/apply:os.getcwd []"]
    texts += ["- 1\n", "\t", "? [a]\n: b\n", "<<: {a: 1}\n" + text, "--- 1\n--- 2\n", "1e9999: x\n"]
    path.write_text(chance.choice(texts))
    return "other values"


class Called:
    """Tells, when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(PLACE / "called"),)


def pickled(path: Path, chance: random.Random) -> str:
    """A checkpoint that calls something, in torch's form or as a bare pickle."""
    path.write_bytes(pickle.dumps({"state_dict": Called()}))
    if chance.random() < 0.7:
        torch.save({"state_dict": {}, "epoch": Called()}, path)
    return "a pickle that calls"


def other_checkpoint(path: Path, chance: random.Random) -> str:
    found = torch.load(path, weights_only=True)
    torch.save(changed(found, chance), path)
    return "other values"


def compressed(path: Path, chance: random.Random) -> str:
    """The same members, compressed or under other names."""
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name if chance.random() < 0.9 else f"../{name}", data)
    return "compressed"


BY_KIND: dict[str, list[Callable[[Path, random.Random], str]]] = {
    ".safetensors": [other_tensors, other_tensors, other_header],
    ".parquet": [other_table],
    ".json": [other_json],
    ".yaml": [other_yaml],
    ".ckpt": [pickled, other_checkpoint, compressed],
}


def damaged(number: int, place: Path) -> tuple[str, str, Path]:
    """The run, what was done to it, and the folder of the copy that it was done to."""
    chance = random.Random(number)
    name = chance.choice([path.name for path in sorted(place.glob("runs/*"))])
    copy = place / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place / "runs" / name, copy)
    unread = ("report.html", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    unread += ("timing.json",)
    files = sorted(p for p in copy.rglob("*") if p.is_file() and p.name not in unread)
    path = chance.choice(files)
    kinds = BY_KIND.get(path.suffix, [])
    done = chance.choice([*ANY, *kinds * (2 + 8 // max(1, len(kinds)))])(path, chance)
    # Half of the time by one who knows of the manifest, half of the time by accident.
    if path.parent.name == "model" and path.name != "manifest.json" and chance.random() < 0.6:
        if chance.random() < 0.5:
            (copy / "model" / "manifest.json").unlink()
        else:
            manifest.write(copy / "model")
        done += ", and the manifest with it"
    return name, f"{path.relative_to(copy)}: {done}", copy


@cache
def right(place: Path, name: str) -> pl.DataFrame:
    return lists(place / "runs" / name)


def lists(run: Path) -> pl.DataFrame:
    saved = recsys.load(run)
    return saved.recommend(saved.users.ids[:3].to_list(), k=4)


def commands(place: Path, name: str, copy: Path, done: str) -> Iterator[tuple[str, Any]]:
    """Everything that may be asked of a folder."""
    whole = place / "runs" / name
    yield "compare", ["compare", str(copy), str(whole)]
    if name == "labels":
        yield "report", lambda: prediction_page.write(copy)
    else:
        yield "load", lambda: lists(copy)
        yield "recommend", ["recommend", str(copy), "--users", "u01", "-k", "3"]
        yield "evaluate", ["evaluate", str(copy)]
        yield "vectors", ["vectors", str(copy), str(place / "vectors")]
        yield "profile", ["profile", str(copy), "--output", str(place / "profile.parquet")]
        yield "report", lambda: ranking_page.write(copy)
    yield "train", command(place, name, copy)  # last: it makes what is missing


def ask(what: Any) -> tuple[str, Any]:
    """`fine`, `refused` or `broken`, with what came back or the reason."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            found = what() if callable(what) else main.main(what)
    except recsys.errors.RecsysError as error:
        return ("refused" if "\n" not in str(error) else "broken: two lines"), str(error)
    except BaseException as error:
        return f"broken: {type(error).__name__}: {' '.join(str(error).split())[:200]}", error
    if isinstance(found, int) and found:
        line = said.getvalue().strip().splitlines()[-1]
        return ("refused" if line.startswith("recsys: ") else f"broken: {line}"), line
    return "fine", found


def asked(number: int, place: Path) -> str:
    name, done, copy = damaged(number, place)
    print(f"{number} {name} {done}", end=" ", flush=True)
    outcomes = []
    only = random.Random(-number).random() < 0.25  # training and reports take longer
    for label, what in commands(place, name, copy, done):
        if label in ("train", "report") and not only and "checkpoints" not in done:
            continue
        sys.argv = ["recsys"]
        outcome, found = ask(what)
        if label == "load" and outcome == "fine" and "manifest with it" not in done:
            outcome = "fine" if found.equals(right(place, name)) else "broken: other lists"
        outcomes.append(f"{label}: {outcome}")
    if (place / "called").exists():
        outcomes.append("broken: a pickle was run")
    return "; ".join(outcomes)


PLACE = Path()

if __name__ == "__main__":
    PLACE = Path(sys.argv[2])
    if sys.argv[1] == "make":
        make(PLACE, sys.argv[3:] or RUNS)
    else:
        torch.set_num_threads(1)
        first, last = map(int, sys.argv[3:5])
        scratch = PLACE / f"from_{first}"
        scratch.mkdir(exist_ok=True)
        for entry in ("runs", "log.csv"):
            if not (scratch / entry).exists():
                (scratch / entry).symlink_to(PLACE.absolute() / entry)
        for number in range(first, last):
            print(asked(number, scratch), flush=True)
