"""Training on two ranks is training on one: the same weights, metrics, lists and files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from recsys import ranks
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged
from recsys.checkpoints import read_checkpoint
from recsys.errors import ConfigError
from recsys.models import LMRec, SASRec
from recsys.models.sequences import Ranking
from recsys.precision import set_precision
from recsys.reading import read_json
from recsys.run import folder
from recsys.scoring.recommender import Progress, Recommender
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training import loop
from recsys.training.divided import divided_tables
from recsys.training.options import TrainingOptions
from recsys.training.processes import join
from recsys.types import Scores

from . import on_ranks

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
pytestmark = pytest.mark.xdist_group("ranks")  # what they share is made once
each_model = pytest.mark.parametrize("name", on_ranks.MODELS)


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


@pytest.fixture(scope="module")
def two(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `on_ranks.py` wrote: one start of two processes for all tests, for it takes long."""
    folder = tmp_path_factory.mktemp("two")
    split.log.events.select("user_id", "item_id", "timestamp").write_csv(folder / "shop.csv")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*TORCHRUN, on_ranks.__file__, folder], check=True, env=environment, timeout=600)
    return folder


@pytest.fixture(scope="module")
def one(split: Split, two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by this process alone, and what two ranks had begun."""
    folder = tmp_path_factory.mktemp("one")
    shutil.copytree(two / "begun", folder / "begun")
    for name in on_ranks.MODELS:
        on_ranks.train(name, split, folder / "whole" / name)
    for name in on_ranks.KILLED:
        on_ranks.train(name, split, folder / "begun" / name)
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    """After the last step."""
    state = read_checkpoint(folder / "checkpoints/last.ckpt")["state_dict"]
    return {name: value for name, value in state.items() if value.is_floating_point()}


@pytest.mark.slow
@each_model
def test_two_ranks_compute_what_one_does(name: str, one: Path, two: Path) -> None:
    alone, together = one / "whole" / name, two / "whole" / name
    shared = weights(together)
    for key, weight in weights(alone).items():
        assert (weight - shared[key]).abs().max() < 1e-12, key
    curves = [pl.read_csv(folder / "train.csv") for folder in (alone, together)]
    assert curves[0].columns == curves[1].columns
    losses = pl.selectors.starts_with("train/")
    assert curves[0].select(~losses).equals(curves[1].select(~losses))
    torch.testing.assert_close(*(c.select(losses).to_torch() for c in curves), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", on_ranks.KILLED)
def test_a_run_goes_on_with_as_many_ranks_or_fewer(name: str, one: Path, two: Path) -> None:
    resumed, shared = weights(two / "resumed" / name), weights(two / "whole" / name)
    begun = weights(one / "begun" / name)
    for key, weight in weights(one / "whole" / name).items():
        assert resumed[key].equal(shared[key]), key  # with two
        assert (weight - begun[key]).abs().max() < 1e-12, key  # with one


@pytest.mark.slow
@each_model
def test_users_are_evaluated_as_by_one(name: str, one: Path, two: Path) -> None:
    frames = [pl.read_parquet(f / "whole" / name / "per_user.parquet") for f in (one, two)]
    assert frames[0].equals(frames[1])


@pytest.mark.slow
def test_ranks_search_a_divided_table_for_each_other(two: Path, tmp_path: Path) -> None:
    on_ranks.search_divided(tmp_path)
    alone, together = (torch.load(folder / "lists.pt") for folder in (tmp_path, two))
    assert (alone["5 ExactIndex True"][0] >= 0).sum(1).tolist() == [3, 4, 4, 4, 4]
    for key, (items, scores) in alone.items():
        assert together[key][0].equal(items), key
        assert together[key][1].equal(scores), key


@pytest.mark.slow
def test_ranks_encode_some_items_each(split: Split, two: Path, tmp_path: Path) -> None:
    with on_ranks.in_small_pieces():
        on_ranks.encode_by_rank(split, tmp_path)
    alone, together = (torch.load(folder / "items.pt") for folder in (tmp_path, two))
    for name in ("unisrec", "lmrec"):
        assert together[name].equal(alone[name])
        pieces = int(alone[f"{name} calls"])
        assert pieces > 2
        assert together[f"{name} calls"] <= pieces / 2 + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", on_ranks.RANKINGS)
def test_a_divided_table_is_trained_as_a_plain_one(name: str, two: Path) -> None:
    assert_alike(two / "plain" / name, two / "divided" / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", on_ranks.ACCUMULATED)
def test_micro_batches_of_two_ranks_compute_what_a_batch_does(
    name: str, one: Path, two: Path
) -> None:
    accumulated = weights(two / "accumulated" / name)
    for key, weight in weights(one / "whole" / name).items():
        assert (weight - accumulated[key]).abs().max() < 1e-12, key


@pytest.mark.slow
def test_micro_batches_with_a_divided_table(two: Path) -> None:
    assert_alike(two / "plain/whole", two / "divided/accumulated")


@pytest.mark.slow
def test_divided_blocks_go_on_with_what_a_whole_model_had_begun(two: Path) -> None:
    resumed = weights(two / "resumed/from_whole")
    for key, weight in weights(two / "whole/lmrec_fsdp").items():
        assert (weight - resumed[key]).abs().max() < 1e-12, key


@pytest.mark.slow
@pytest.mark.parametrize("name", on_ranks.MIXED)
def test_two_ranks_in_mixed_precision(name: str, one: Path, two: Path) -> None:
    curves = [pl.read_csv(f / "train.csv") for f in (one / "whole" / name, two / "mixed" / name)]
    losses = [curve["train/loss"].to_torch() for curve in curves]
    torch.testing.assert_close(*losses, rtol=0.01, atol=0.0)  # 8 bits
    assert {weight.dtype for weight in weights(two / "mixed" / name).values()} == {torch.float32}


@pytest.mark.slow
def test_a_checkpoint_is_read_whoever_wrote_it(split: Split, two: Path, tmp_path: Path) -> None:
    """With a divided table from either kind, and alone from that of rows."""
    for name in ("from_plain", "from_divided_by_two"):
        assert_alike(two / "plain/whole", two / name)
        assert len(rows_in(two / name)) == 4  # of two ranks the last epoch's and the best one's
    shutil.copytree(two / "from_divided", tmp_path, dirs_exist_ok=True)
    assert len(rows_in(tmp_path)) == 4
    on_ranks.train_divided(split, tmp_path)  # alone
    assert_alike(two / "plain/whole", tmp_path)
    assert not [name for name in rows_in(tmp_path) if name.startswith("last")]


def rows_in(folder: Path) -> list[str]:
    return [path.name for path in (folder / "checkpoints").glob("*.safetensors")]


def assert_alike(first: Path, second: Path) -> None:
    """Two trainings of 50 steps in float32, to 1e-6."""
    others = weights(second)
    for key, weight in weights(first).items():
        difference = (weight - others[key]).abs()
        if key.endswith("projections.bias"):
            # A bias of the keys changes no softmax: its gradient is what sums leave of 0, which
            # AdamW makes steps of.
            difference = difference.view(3, -1)[[0, 2]]
        assert difference.max() < 1e-6, key
    curves = [pl.read_csv(folder / "train.csv") for folder in (first, second)]
    losses = [curve["train/loss"].to_torch() for curve in curves]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_run_on_two_ranks_leaves_the_files_of_one(
    two: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = run(*on_ranks.command(two, "alone"))
    assert (code, err) == (0, "")
    assert not (two / "run_of_1").exists()
    alone, together = two / "alone", two / "run_of_0"
    files = [sorted(str(p.relative_to(f)) for p in f.rglob("*")) for f in (alone, together)]
    assert files[0] == files[1]
    for name in ("metrics.json", "intervals.json", "baselines/popularity/metrics.json"):
        assert read_json(alone / name) == read_json(together / name)
    # It goes on alone: how many do the work is not what the work is.
    code, _, err = run(*on_ranks.command(two, "run_of_0"))
    assert (code, err) == (0, "")


def test_every_rank_has_as_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    history = BasketBatch.from_lists([[[i]] for i in range(5)], num_items=5)
    part = Part("train", history, Ragged.from_lists([[i] for i in range(5)]))
    monkeypatch.setattr(ranks, "world", lambda: 2)
    rows: list[list[list[int]]] = []
    batches: list[list[int]] = []
    turns: list[list[int]] = []
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        of_rank = Loader(part, 2, shuffle_seed=3, by_rank="rows")
        rows.append([batch.history.items.tolist() for batch in of_rank])
        lists = Loader(part, 2, by_rank="batches")
        assert len(lists) == len(list(lists))
        batches += [batch.history.items.tolist() for batch in lists]
        turns.append([len(batch) for batch in Loader(part, 2, by_rank="turns")])
    whole = [batch.history.items.tolist() for batch in Loader(part, 2, shuffle_seed=3)]
    assert [first + second for first, second in zip(*rows, strict=True)] == whole
    assert [len(batch) for batch in rows[1]] == [1, 1, 0]
    assert batches == [[0, 1], [2, 3], [4]]
    assert turns == [[2, 2], [1, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "ddp_fork"}, "strategy=ddp_fork hangs once polars has run .* torchrun"),
        ({"strategy": "ddp_spawn"}, "strategy=ddp_spawn starts .* torchrun"),
        ({"strategy": "deepspeed"}, "strategy=deepspeed is not offered; choose among auto, ddp"),
        ({"devices": 0}, "devices=0"),
    ],
)
def test_strategies_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingOptions(**options)


def test_ranks_that_nobody_started() -> None:
    message = "trainer.devices=2 trainer.num_nodes=3 is 6 processes, and 1 was started; .*torchrun"
    with pytest.raises(ConfigError, match=message):
        join(2, 3)
    with pytest.raises(ConfigError, match="device=cuda:1 is one device for 2 ranks; set cuda"):
        join(2, device="cuda:1")


def test_models_that_train_in_one_process(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    class Whole(Recommender):
        def loss(self, part: Part, progress: Progress) -> Tensor:
            raise AssertionError

        def score(self, batch: BasketBatch) -> Scores:
            raise AssertionError

    monkeypatch.setattr(loop, "join", lambda *_: None)
    monkeypatch.setattr(ranks, "world", lambda: 2)
    model = Whole(learning_rate=0.1, weight_decay=0.0)
    options = TrainingOptions(devices=2, monitor="ndcg@5", device="cpu")
    with pytest.raises(ConfigError, match=r"devices=2: Whole trains in one process; set .*=1"):
        loop.fit(model, split, options, on_ranks.PROTOCOL)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sasrec", {}, "strategy=fsdp divides the layers of a decoder, and SASRec has none"),
        ("lmrec", {"precision": "16-true"}, "precision=16-true scales its gradients"),
    ],
)
def test_what_is_not_divided_by_blocks(
    name: str, options: dict[str, Any], message: str, split: Split, tmp_path: Path
) -> None:
    training = TrainingOptions(strategy="fsdp", monitor="ndcg@5", device="cpu", **options)
    with pytest.raises(ConfigError, match=message):
        loop.fit(on_ranks.model_of(name, split), split, training, on_ranks.PROTOCOL)


def test_weights_of_two_precisions_are_not_divided(split: Split) -> None:
    model = on_ranks.model_of("lmrec", split)
    assert isinstance(model, LMRec)
    set_precision(model.user_projection, torch.bfloat16)
    training = TrainingOptions(strategy="fsdp", monitor="ndcg@5", device="cpu")
    message = "weights in torch.bfloat16, torch.float32: .*decoder.dtype=float32"
    with pytest.raises(ConfigError, match=message):
        loop.fit(model, split, training, on_ranks.PROTOCOL)


def test_tasks_that_are_done_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.create({"device": "cpu", "trainer": {"devices": 2}, "task": {"labels": {}}})
    monkeypatch.setattr(folder, "join", lambda *_: None)
    monkeypatch.setattr(ranks, "world", lambda: 2)
    message = "devices=2 .*: what predicts labels runs in one process; set both to 1"
    with pytest.raises(ConfigError, match=message), folder.of_all_ranks(config, tmp_path):
        pass


def test_what_a_divided_table_cannot_do(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"shard=true divides .*set text=null"):
        SASRec(4, shard=True, ranking=Ranking(softmax=False, num_negatives=1))
    monkeypatch.setattr(ranks, "is_joined", lambda: True)
    training = TrainingOptions(gradient_clip=1.0)
    message = r"trainer.gradient_clip=1.0 .*divide need null and 32-true; set shard=false"
    with pytest.raises(ConfigError, match=message):
        divided_tables(SASRec(4, shard=True), training).__enter__()
