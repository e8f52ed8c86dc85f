"""Profiles: a vector of every user as of a moment, from a model that was trained to know users.

Shapes: R rows, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import torch
from rich.progress import track
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import ranges
from recsys.errors import DataError
from recsys.log.event_log import TIME, USER, EventLog
from recsys.log.time import Moment, just_after, moment
from recsys.scoring import saved_model
from recsys.scoring.kinds import ProfileEncoder, profile_encoder
from recsys.tasks.as_of import AS_OF, before, spans
from recsys.tasks.splits import Split, unsplit
from recsys.tasks.tensors import tensor_of

VECTOR = "vector"
EVENTS_AT_ONCE = 2**17
"""How many events are encoded in one go; whole histories, at least one."""


@dataclass(frozen=True)
class Profile:
    """The vectors of a run's model as a feature of users.

    Attributes:
        run: the run's folder, opened when the feature is first asked for.
        written: when its weights were written. It tells a run's profiles from those of a later
            training in the same folder.
    """

    run: str
    written: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights = Path(self.run) / "model" / "weights.safetensors"
        written_at = weights.stat().st_mtime_ns if weights.is_file() else 0
        object.__setattr__(self, "written", written_at)

    @cached_property
    def model(self) -> ProfileEncoder:
        # As features are: in a half, what else is in a batch would show.
        return profile_encoder(saved_model.load(self.run).model).float()

    @property
    def trained_until(self) -> int:
        """The time of the last event that the model has learnt from, in seconds since 1970."""
        return self.model.trained_until

    def __call__(self, log: EventLog, rows: pl.DataFrame) -> np.ndarray:
        """(R, D) float32 of rows with `user_id` and `as_of`.

        A log's label tables often have rows of the same users at the same moments, who are encoded
        once.
        """
        pairs = rows.select(USER, AS_OF)
        known_pairs, vectors = log.memo.get(self, (pairs.clear(), None))
        new_pairs = pairs.unique(maintain_order=True).join(
            known_pairs, on=[USER, AS_OF], how="anti"
        )
        if len(new_pairs):
            new_vectors = profiles(self.model, log, new_pairs)
            known_pairs = pl.concat([known_pairs, new_pairs])
            vectors = new_vectors if vectors is None else torch.cat([vectors, new_vectors])
            log.memo[self] = known_pairs, vectors
        place = pairs.join(
            known_pairs.with_row_index("_place"), on=[USER, AS_OF], maintain_order="left"
        )
        assert vectors is not None
        return vectors.numpy()[place["_place"].to_numpy()]


@torch.inference_mode()
def profiles(
    model: ProfileEncoder, log: EventLog, rows: pl.DataFrame, *, progress: bool = False
) -> Tensor:
    """(R, D) float32 of the events that each row's user had before the row's moment.

    Args:
        model: trained.
        log: any whose items are described as those that the model was trained on.
        rows: `user_id` and `as_of`, a moment of the type of the log's timestamps.
        progress: whether to show a bar.

    Raises:
        DataError: items lack an attribute that the model reads, or the log dates.
    """
    model.eval()
    if model.reads_dates and not log.has_calendar_time:
        raise DataError(
            f"{log.name}: timestamps are an order, not dates, which the model reads; give dates, "
            "or train one with model.calendar=[]"
        )
    starts, ends = (torch.from_numpy(bounds) for bounds in spans(log, rows))
    histories, indices, vectors = unsplit(log), [], []
    for index, items in _described(log, rows[AS_OF]):
        model.read_items(items)
        indices.append(index)
        vectors.append(_encoded(model, histories, starts[index], (ends - starts)[index], progress))
    return torch.cat(vectors)[torch.cat(indices).argsort()]


def _described(log: EventLog, moments: pl.Series) -> Iterator[tuple[Tensor, pl.DataFrame]]:
    """For each distinct moment of (R,), the indices of its rows and the items described then."""
    if not log.item_columns:
        yield torch.arange(len(moments)), log.items
        return
    for when in moments.unique().sort():
        yield tensor_of((moments == when).arg_true()), before(log, when).items


@torch.inference_mode()
def of_training(model: ProfileEncoder, split: Split) -> pl.DataFrame:
    """The users that a model was trained on, as their training events alone show them.

    Args:
        model: trained on the split.

    Returns:
        `user_id`; `as_of`, just after the user's last training event; `vector`; and what the log
        says of the user in columns of other names.
    """
    model.eval()
    history, log = split.training, split.log
    vectors = _encoded(model, history, history.offsets[:-1], history.lengths())
    last = log.events[TIME][split.training_ends.numpy()]
    frame = pl.DataFrame(
        [
            split.users.ids[history.users.numpy()].rename(USER),
            just_after(last).rename(AS_OF),
            pl.Series(VECTOR, vectors.numpy()),
        ]
    )
    users = log.users.drop(AS_OF, VECTOR, strict=False)
    return frame.join(users, on=USER, how="left", maintain_order="left")


def _encoded(
    model: ProfileEncoder,
    histories: BasketBatch,
    starts: Tensor,
    lengths: Tensor,
    progress: bool = False,
) -> Tensor:
    """(R, D) float32 of stretches of events, on the CPU."""
    # Pieces of about as many events, in the order of the rows.
    piece = (lengths.cumsum(0) - lengths) // EVENTS_AT_ONCE
    sizes = torch.unique_consecutive(piece, return_counts=True)[1].tolist()
    pieces = torch.arange(len(starts)).split(sizes)
    device = next(model.parameters()).device
    vectors = []
    for index in track(pieces, "profiles", disable=not progress, transient=True):
        events, offsets = ranges(starts[index], lengths[index])
        batch = histories.take(events, offsets, torch.full_like(index, -1)).to(device)
        vectors.append(model.encode_profiles(batch).float().cpu())
    return torch.cat(vectors)


def everyone(log: EventLog, as_of: Moment | None = None) -> pl.DataFrame:
    """Every user of a log with an event before a moment: `user_id` and `as_of`.

    Args:
        log: any.
        as_of: a time, or ISO 8601 text, in the log's time zone where it names none; an integer for
            a log that knows only an order. None is just after the last event.

    Raises:
        ConfigError: a moment that is not of the log's kind.
        DataError: one before everything.
    """
    times = log.events[TIME]
    last = pl.Series([times.max()], dtype=times.dtype)
    when = just_after(last) if as_of is None else moment(log, AS_OF, as_of)
    users = log.events.filter(times < when[0]).select(pl.col(USER).unique().sort())
    if not len(users):
        raise DataError(f"{log.name}: no event lies before as_of={as_of}; give a later moment")
    return users.with_columns(pl.lit(when).first().alias(AS_OF))
