"""Small splits with known baskets, and a run that knows users."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys.evaluation.ranking import Protocol
from recsys.log.event_log import EventLog
from recsys.scoring import saved_model
from recsys.tasks.splits import Split, last_basket, user_holdout
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

Baskets = list[list[int]]


def split_by_user(training: list[Baskets], num_items: int) -> Split:
    """Training users with the given baskets, and one user each to validate and test on.

    Those two take every item, so that item ids are indices.
    """
    histories = [list(range(num_items)), [0]]
    users = {f"{u:03}": baskets for u, baskets in enumerate(training)}
    users |= {"validation": histories, "test": histories}
    rows = [
        (user, item, t, t)
        for user, baskets in users.items()
        for t, basket in enumerate(baskets)
        for item in basket
    ]
    columns = ["user_id", "item_id", "timestamp", "basket_id"]
    parts = [user if user in ("validation", "test") else "train" for user in users]
    return user_holdout(
        EventLog.from_frames(
            pl.DataFrame(rows, columns, orient="row"),
            users=pl.DataFrame({"user_id": list(users), "split": parts}),
        )
    )


@pytest.fixture(scope="session")
def split_of() -> Callable[[list[Baskets], int], Split]:
    """Makes a split of the training users' baskets and the number of items."""
    return split_by_user


@pytest.fixture(scope="session")
def profile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pre-trained run on the whole checkerboard."""
    folder = tmp_path_factory.mktemp("run")
    split: Split = last_basket(checkerboard())
    config: dict[str, Any] = {
        "_target_": "recsys.models.ShopperBERT",
        "num_items": split.num_items,
        "attributes": ["item_id"],
        "num_classes": split.num_classes,
        "calendar": ["weekday"],
        "encoder": {
            "_target_": "recsys.models.users.Encoder",
            "embedding_dim": 8,
            "num_layers": 1,
            "ffn_dim": 16,
            "max_length": 16,
        },
        "learning_rate": 0.02,
    }
    torch.manual_seed(0)
    model = saved_model.build(config)
    training = TrainingOptions(max_epochs=1, batch_size=16, monitor="ndcg@5", device="cpu")
    fit(model, split, training, Protocol(ks=(5,)))
    saved_model.save(folder / "model", model, split, config, mask_history=False)
    return folder
