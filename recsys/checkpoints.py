"""Checkpoints of training: one file; or, of weights that ranks divide, a file of each rank's rows.

    checkpoints/last.ckpt                           torch's archive; or JSON, the index of
    checkpoints/last.5f0c11e2.0-of-2.safetensors    what rank 0 holds, and all that is not divided
    checkpoints/last.5f0c11e2.1-of-2.safetensors    the rows of rank 1

The index has the checkpoint's numbers and words, and says of each tensor its shape, its type and
which rows are in which file; of each file its size and SHA-256. It is written last, in one move,
and every write has names of its own: one that is killed leaves the checkpoint before it as it was,
whose files go once another is whole. Either form is read whole; of rows each rank reads some.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils import _pytree as pytree

from recsys import ranks
from recsys.files import atomic_file, facts_of, write_text
from recsys.reading import check_file, read_json, reading

REMEDY = "remove checkpoints/ to train from the start"
TENSOR = "$tensor"
"""What stands in an index for a tensor."""


class SavedRows:
    """A tensor of which files hold some rows each: read when it is asked for.

    Attributes:
        shape, dtype: of all of it.
    """

    def __init__(self, name: str, description: Mapping[str, Any], files: _Files) -> None:
        self.shape = torch.Size(description["shape"])
        self.dtype = getattr(torch, description["dtype"])
        if not isinstance(self.dtype, torch.dtype):
            raise TypeError(f"{name} is of no type: {self.dtype}")
        self._name, self._files = name, files
        self._parts = [(*_pair(part["rows"]), part["file"]) for part in description["parts"]]
        ends = [0, *(stop for _, stop, _ in self._parts)]
        if [start for start, _, _ in self._parts] != ends[:-1] or ends[-1] != self.shape[0]:
            raise ValueError(f"{name} lacks rows, or has some twice")

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, …), a copy on the processor.

        Raises:
            RunError: a file is not the one that was written.
        """
        with reading(self._files.index, remedy=REMEDY):
            # Of the first part no row, where none is asked for.
            read = [part for part in self._parts if part[0] < stop and start < part[1]]
            return torch.cat([self._of(*part, start, stop) for part in read or self._parts[:1]])

    def whole(self) -> Tensor:
        """All rows. Raises RunError as `rows`."""
        return self.rows(0, self.shape[0])

    def _of(self, first: int, last: int, file: str, start: int, stop: int) -> Tensor:
        """Of the rows of a part those from `start` to `stop`."""
        with self._files.opened(file) as opened:
            there = opened.get_slice(self._name)
            if there.get_shape() != [last - first, *self.shape[1:]]:
                raise ValueError(f"{self._name} has another shape in {file}")
            begin = min(max(start - first, 0), last - first)
            rows: Tensor = there[begin : max(min(stop, last) - first, begin)]
        if rows.dtype != self.dtype:
            raise ValueError(f"{self._name} is {rows.dtype} in {file}; expected {self.dtype}")
        return rows


def _pair(rows: Sequence[int]) -> tuple[int, int]:
    start, stop = rows
    return start, stop


class _Files:
    """The files beside an index, each compared with what the index says of it before it is read."""

    def __init__(self, index: Path, facts: Mapping[str, Any]) -> None:
        self.index, self.facts = index, facts
        self._same: set[str] = set()

    def opened(self, name: str) -> Any:
        """A file's tensors, as a context."""
        path = self.index.with_name(name)  # which refuses what is a path
        if name not in self._same:
            if not path.is_file():
                raise ValueError(f"{name} is missing")
            if facts_of(path) != self.facts[name]:
                raise ValueError(f"{name} is not the file that was written")
            self._same.add(name)
        return safe_open(path, framework="pt")


def read_checkpoint(path: Path, *, whole: bool = True) -> dict[str, Any]:
    """A checkpoint of training, of either form; nothing that it names is called.

    Args:
        path: `last.ckpt` or `best.ckpt`.
        whole: otherwise tensors of which there are rows in several files are `SavedRows`.

    Raises:
        RunError: it is none, or not as it was written.
    """
    check_file(path)
    with reading(path, remedy=REMEDY):
        with path.open("rb") as file:
            is_index = file.read(1) == b"{"
        checkpoint = _of_files(path) if is_index else _of_archive(path)
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
            raise TypeError("no state of a model")
        if whole:
            checkpoint = pytree.tree_map_only(SavedRows, SavedRows.whole, checkpoint)
        return checkpoint


def _of_archive(path: Path) -> Any:
    with ZipFile(path) as file:
        if (name := file.testzip()) is not None:  # torch itself does not look
            raise ValueError(f"{name} is not as it was written")
    return torch.load(path, map_location="cpu", weights_only=True)


def _of_files(path: Path) -> Any:
    index = read_json(path)
    if index.pop("sha256", None) != _digest(index):
        raise ValueError("not as it was written")
    files = _Files(path, index["files"])
    tensors = {name: _tensor(name, of, files) for name, of in index["tensors"].items()}
    return _with_tensors(index["checkpoint"], tensors)


def _tensor(name: str, description: Mapping[str, Any], files: _Files) -> Tensor | SavedRows:
    (first, *_) = description["parts"]
    if "rows" in first:
        return SavedRows(name, description, files)
    with files.opened(first["file"]) as opened:
        tensor: Tensor = opened.get_tensor(name)
        return tensor.clone()  # of what is no part of the file


def write_divided(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint whose divided tensors no rank has as a whole. All ranks call it.

    Args:
        path: of the index.
        checkpoint: numbers, words and tensors; of a `DTensor` each rank writes its rows, and rank 0
            everything else.

    Raises:
        OSError: as `recsys.files.atomic_file`.
    """
    tensors = _Tensors()
    described = _without_tensors(checkpoint, "", tensors)
    token = ranks.agreed(secrets.token_hex(4))  # what is there keeps its files until the end
    name = f"{path.stem}.{token}.{ranks.rank()}-of-{ranks.world()}.safetensors"
    with atomic_file(path.with_name(name), by_rank=True) as scratch:
        save_file(tensors.own(), scratch)
        facts = facts_of(scratch)
    every = ranks.gathered((name, facts, tensors.num_rows()))
    if ranks.is_first():
        parts = [(file, rows) for file, _, rows in every]
        index = {
            "checkpoint": described,
            "tensors": {name: _described(name, of, parts) for name, of in tensors.every.items()},
            "files": {file: facts for file, facts, _ in every},
        }
        write_text(path, json.dumps(index | {"sha256": _digest(index)}, indent=1))
        remove_others(path, index["files"])
    ranks.wait()  # or a rank would read the index before this one, whose files are being removed


def remove_others(path: Path, files: Collection[str] = ()) -> None:
    """Remove files of rows that stand beside a checkpoint and are not among its own."""
    for file in path.parent.glob(f"{escape(path.stem)}.*-of-*.safetensors"):
        if file.name not in files:
            file.unlink()


class _Tensors:
    """The tensors of a checkpoint by name, each once, whatever it is called in other places.

    Attributes:
        every: by the first name of each.
    """

    def __init__(self) -> None:
        self.every: dict[str, Tensor] = {}
        self._names: dict[Any, str] = {}

    def name_of(self, tensor: Tensor, name: str) -> str:
        """The name under which a tensor is written, this one unless it has been there before."""
        here = _local(tensor)
        place = (here.data_ptr(), here.shape, here.dtype) if here.numel() else name
        first = self._names.setdefault(place, name)
        self.every.setdefault(first, tensor)
        return first

    def own(self) -> dict[str, Tensor]:
        """What this rank writes."""
        divided = self.num_rows()
        names = self.every if ranks.is_first() else divided
        return {name: _local(self.every[name]).contiguous() for name in names}

    def num_rows(self) -> dict[str, int]:
        """Of each divided tensor how many rows this rank holds."""
        divided = (name for name, tensor in self.every.items() if isinstance(tensor, DTensor))
        return {name: len(_local(self.every[name])) for name in divided}


def _local(tensor: Tensor) -> Tensor:
    """Of a divided tensor the rows of this rank; any other as it is."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    assert all(placement.is_shard(0) for placement in tensor.placements), "divided, but by rows"
    return tensor.to_local().detach()


def _described(
    name: str, tensor: Tensor, parts: Sequence[tuple[str, Mapping[str, int]]]
) -> dict[str, Any]:
    """What the index says of a tensor; `parts` are the files, with the rows of tensors in each."""
    facts = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if not isinstance(tensor, DTensor):
        return facts | {"parts": [{"file": parts[0][0]}]}
    rows, start = [], 0
    for file, num_rows in parts:
        rows.append({"file": file, "rows": [start, start + num_rows[name]]})
        start += num_rows[name]
    return facts | {"parts": rows}


def _without_tensors(value: Any, name: str, tensors: _Tensors) -> Any:
    """A checkpoint as JSON has it; names of numbers are text there."""
    if isinstance(value, Tensor):
        return {TENSOR: tensors.name_of(value, name)}
    if isinstance(value, Mapping):
        return {str(k): _without_tensors(v, f"{name}/{k}", tensors) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor | SavedRows]) -> Any:
    """The same, back; a name of digits was a number, as those of an optimiser's weights are."""
    if isinstance(value, list):
        return [_with_tensors(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {TENSOR}:
        return tensors[value[TENSOR]]
    numbers = {int(k) if k.isdecimal() else k: v for k, v in value.items()}
    return {name: _with_tensors(entry, tensors) for name, entry in numbers.items()}


def _digest(index: Mapping[str, Any]) -> str:
    """SHA-256 of what an index says."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
