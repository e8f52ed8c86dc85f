"""For people who add models: a log whose right answer is known, and the tests every model passes.

    from recsys.testing.contracts import ModelContract

    class TestMyModel(ModelContract):
        def config(self, split):
            return {"_target_": "my_package.MyModel", "num_items": split.num_items}

Predictors, which predict labels of users, pass `PredictorContract` instead.

Needs pytest. Register the marker `gpu`, or run `pytest -m "not gpu"` where there is none.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged
from recsys.errors import RunError
from recsys.evaluation.binary_metrics import auroc
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.retrieval.index import ExactIndex
from recsys.retrieval.lists import top_k
from recsys.scoring import saved_model, trust
from recsys.scoring.kinds import Explainable, Measured, VectorScorer, members_of
from recsys.scoring.predictor import Predictor
from recsys.scoring.recommender import Progress, Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.as_of import folds
from recsys.tasks.labels import LabelTable
from recsys.tasks.phases import TEST, TRAIN, VALIDATION
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard, colour_table, new_item_table
from recsys.testing.second_device import second_device
from recsys.training.callbacks import epoch_seed
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

TableAndRows = tuple[LabelTable, Tensor, Tensor]
"""A table, the rows to learn from and those to predict."""


class ModelContract:
    """What every model must do. A subclass says how its model is built.

    Attributes:
        finds_colours: whether the best items of a user are of its colour. False for a model that
            ranks alike for all users.
        finds_new_items: whether that holds among items that the user has not had. False for a
            model that personalises nothing but the user's own items.
        ranks_newcomers: whether it has learnt a list for users without a history. The others rank
            by popularity for them.
        training: for models with a loss.
        k: length of the lists.
    """

    finds_colours: ClassVar[bool] = True
    finds_new_items: ClassVar[bool] = True
    ranks_newcomers: ClassVar[bool] = False
    training: ClassVar[TrainingOptions] = TrainingOptions(
        max_epochs=30, batch_size=16, monitor="ndcg@5", evaluate_every=10, device="cpu"
    )
    k: ClassVar[int] = 5

    def config(self, split: Split) -> dict[str, Any]:
        """The model's config for a split, as its YAML file would give it, with `_target_`."""
        raise NotImplementedError

    def fitted(self, split: Split) -> Scorer:
        """A model, built and fitted from a fixed seed."""
        torch.manual_seed(0)
        model = saved_model.build(self.config(split))
        # What it takes is estimated, too, on a copy.
        return fit(model, split, self.training, Protocol(ks=(self.k,)), tell=lambda line: None)

    @pytest.fixture(scope="class")
    @classmethod
    def split(cls) -> Split:
        return last_basket(checkerboard())

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, split: Split) -> Scorer:
        return cls().fitted(split)

    def test_scores_are_finite_for_every_user_and_item(self, model: Scorer, split: Split) -> None:
        scores = _scores(model, split.test.history)
        assert scores.shape == (len(split.test), split.num_items)
        assert scores.isfinite().all()

    def test_best_items_are_of_the_users_colour(self, model: Scorer, split: Split) -> None:
        if not self.finds_colours:
            pytest.skip("this model does not tell users apart")
        best = model.top_k(split.test.history, self.k).items
        assert (best % 2 == split.test.history.users[:, None] % 2).all()

    def test_best_new_items_are_of_the_users_colour(self, model: Scorer, split: Split) -> None:
        if not self.finds_new_items:
            pytest.skip("this model does not tell items apart that the user has not had")
        best = model.top_k(split.test.history, self.k, mask_history=True).items
        assert (best % 2 == split.test.history.users[:, None] % 2).all()

    def test_masks_the_history(self, model: Scorer, split: Split) -> None:
        history = split.test.history
        top = model.top_k(history, self.k, mask_history=True)
        assert not history.multi_hot().gather(1, top.items).any()
        scores = _ranked(model, history)
        torch.testing.assert_close(top.scores, scores.gather(1, top.items))

    def test_parts_add_up_to_the_score(self, model: Scorer, split: Split) -> None:
        if not isinstance(model, Explainable):
            pytest.skip("this model does not say what brought a score")
        history = split.test.history
        items = model.top_k(history, self.k).items[:, -1]
        with torch.inference_mode():
            parts = model.parts(history, items, split.item_table)
            scores = model.score(history).gather(1, items[:, None])[:, 0].double()
        total = torch.stack([p.sum(len(history)) for p in parts]).sum(0)
        # Sums in another order, of which one may have been taken in float32.
        torch.testing.assert_close(total, scores, rtol=1e-5, atol=1e-6)

    def test_a_list_for_users_without_a_history(self, model: Scorer, split: Split) -> None:
        newcomers = BasketBatch.from_lists([[], []], split.num_items)
        popularity = torch.bincount(split.training.items, minlength=split.num_items).double()
        expected = top_k(popularity.expand(2, -1), split.num_items).items
        for masked in (False, True):
            top = model.top_k(newcomers, split.num_items, mask_history=masked)
            first = model.top_k(newcomers, 1, mask_history=masked)
            assert first.items.equal(top.items[:, :1])
            assert top.scores.isfinite().all()
            if self.ranks_newcomers:
                assert (top.scores[:, 0] > top.scores[:, -1]).all()
            else:
                assert top.items.equal(expected)

    def test_users_whom_the_log_does_not_know(self, model: Scorer, split: Split) -> None:
        newcomer = BasketBatch.from_lists([[]], split.num_items)
        assert _scores(model, newcomer).isfinite().all()
        known = split.test.history
        strangers = replace(known, users=torch.full_like(known.users, -1))
        assert _scores(model, strangers).isfinite().all()
        if self.finds_colours:
            best = model.top_k(strangers, self.k).items
            assert (best % 2 == known.users[:, None] % 2).all()

    def test_a_user_scores_the_same_in_any_batch(self, model: Scorer, split: Split) -> None:
        known = split.test.history.rows(torch.arange(8))
        lengths = (0, 1, 5, 40)
        unknown = [[[t % split.num_items] for t in range(length)] for length in lengths]
        for batch in (known, BasketBatch.from_lists(unknown, split.num_items)):
            rows = torch.arange(len(batch))
            alone = torch.cat([_scores(model, batch.rows(row)) for row in rows.split(1)])
            torch.testing.assert_close(_scores(model, batch), alone, rtol=1e-4, atol=1e-5)

    def test_mixed_precision_around_it(self, model: Scorer, split: Split) -> None:
        built = saved_model.build(self.config(split))
        with torch.autocast("cpu", torch.bfloat16):
            assert _scores(model, split.test.history).isfinite().all()
            for member in (built, *(member for _, member in members_of(built))):
                if isinstance(member, Recommender):
                    loss = member.loss(member.prepare(split).rows(torch.arange(8)), Progress(0, 1))
                    loss.backward()
                    assert loss.isfinite()
                    learnt = [p.grad for p in member.parameters() if p.grad is not None]
                    assert all(gradient.isfinite().all() for gradient in learnt)

    def test_same_seed_gives_the_same_numbers(self, model: Scorer, split: Split) -> None:
        again = self.fitted(split)
        history = split.test.history
        assert _scores(again, history).equal(_scores(model, history))

    def test_saved_and_loaded_it_scores_the_same(
        self, model: Scorer, split: Split, tmp_path: Path
    ) -> None:
        config = self.config(split)
        saved_model.save(tmp_path / "model", model, split, config, mask_history=False)
        package = config["_target_"].partition(".")[0]
        loaded = saved_model.load(tmp_path, trusted=[package])
        history = split.test.history
        assert _scores(loaded.model, history).equal(_scores(model, history))
        assert len(loaded.recommend([0, 1], k=self.k)) == 2 * self.k

    def test_saved_tensors_that_cannot_be_are_refused(
        self, model: Scorer, split: Split, tmp_path: Path
    ) -> None:
        """Native code looks at no index: what is out of range must not get so far.

        An integer that is no index may be anything, as long as nothing is ranked by it.
        """
        config = self.config(split)
        saved_model.save(tmp_path / "model", model, split, config, mask_history=False)
        (tmp_path / "model" / "manifest.json").unlink()  # which would tell
        path = tmp_path / "model" / "weights.safetensors"
        whole = load_file(path)
        package = config["_target_"].partition(".")[0]
        history = split.test.history
        for name, tensor in whole.items():
            longer = torch.cat([tensor.flatten(), tensor.new_zeros(1)])
            save_file({**whole, name: longer}, path)
            with pytest.raises(RunError, match="is damaged"):
                saved_model.load(tmp_path, trusted=[package])
            if tensor.is_floating_point() or tensor.dtype == torch.bool:
                continue
            for value in (torch.iinfo(tensor.dtype).max, torch.iinfo(tensor.dtype).min):
                save_file({**whole, name: torch.full_like(tensor, value)}, path)
                try:
                    loaded = saved_model.load(tmp_path, trusted=[package])
                except RunError:
                    continue
                assert _scores(loaded.model, history).equal(_scores(model, history)), name

    def test_vectors_rank_as_scores_do(self, model: Scorer, split: Split) -> None:
        if not isinstance(model, VectorScorer):
            pytest.skip("this model has no vectors")
        history = split.test.history
        with torch.inference_mode():
            index = ExactIndex(model.encode_items())
        by_index = model.top_k(history, self.k, index=index).items
        scores = _scores(model, history)
        best = top_k(scores, self.k).items
        torch.testing.assert_close(scores.gather(1, by_index), scores.gather(1, best))

    def test_all_of_it_scores_on_one_device(self, model: Scorer, split: Split) -> None:
        protocol = Protocol(ks=(self.k,))
        with second_device() as there:
            moved = deepcopy(model).to(there)
            assert {t.device for t in chain(moved.parameters(), moved.buffers())} <= {there}
            scores = _scores(moved, split.test.history.to(there))
            assert scores.device == there
            scores, result = scores.cpu(), evaluate(moved, split.test, protocol)
            figures = moved.measure(split, VALIDATION) if isinstance(moved, Measured) else {}
        torch.testing.assert_close(scores, _scores(model, split.test.history), rtol=1e-4, atol=1e-5)
        assert result.means == pytest.approx(evaluate(model, split.test, protocol).means, rel=1e-4)
        if isinstance(model, Measured):
            assert figures == pytest.approx(model.measure(split, VALIDATION), rel=1e-3)

    def test_all_of_it_learns_on_one_device(self, split: Split) -> None:
        torch.manual_seed(0)
        model = saved_model.build(self.config(split))
        for member in (model, *(member for _, member in members_of(model))):
            if not isinstance(member, Recommender):
                continue
            part = member.prepare(split)
            with second_device() as there:
                member.to(there)
                rows = torch.arange(8, device=there)
                member.loss(part.to(there).rows(rows), Progress(0, 1)).backward()
                learnt = [p.grad.device for p in member.parameters() if p.grad is not None]
                assert set(learnt) == {there}

    def test_any_loop_can_train_it(self, split: Split, tmp_path: Path) -> None:
        """Two steps in plain PyTorch have the loss and the weights of two of ours."""
        torch.manual_seed(0)
        model = saved_model.build(self.config(split))
        if not isinstance(model, Recommender):
            pytest.skip("this model has no loss of its own")
        by_hand = deepcopy(model)
        torch.manual_seed(0)  # `prepare` may draw
        part = by_hand.prepare(split)
        size = -(-len(part) // 2)
        loss = _trained_by_hand(by_hand, part, size, epoch_seed(self.training.seed, 0))
        torch.manual_seed(0)
        training = replace(self.training, max_epochs=1, evaluate_every=1, batch_size=size)
        fit(model, split, training, Protocol(ks=(self.k,)), folder=tmp_path)
        assert pl.read_csv(tmp_path / "train.csv", glob=False)[
            "train/loss"
        ].item() == pytest.approx(loss)
        for name, parameter in by_hand.named_parameters():
            torch.testing.assert_close(parameter, model.get_parameter(name))

    @pytest.mark.gpu
    def test_scores_alike_on_a_gpu(self, model: Scorer, split: Split) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        history = split.test.history
        there = _scores(deepcopy(model).to("cuda"), history.to("cuda"))
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), _scores(model, history), rtol=1e-3, atol=1e-4)


def _trained_by_hand(model: Recommender, part: Part, batch_size: int, seed: int) -> float:
    """Train on each batch once; the mean loss of a user."""
    loader = Loader(part, batch_size, shuffle_seed=seed)
    made = model.train().optimizer(num_steps=len(loader))
    made = made if isinstance(made, dict) else {"optimizer": made}
    optimizer, schedule = made["optimizer"], made.get("lr_scheduler", {})
    torch.manual_seed(seed)
    total = 0.0
    for step, batch in enumerate(loader):
        loss = model.loss(batch, Progress(step, len(loader)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule.get("interval") == "step":
            schedule["scheduler"].step()
        total += loss.item() * len(batch)
    return total / len(part)


@torch.inference_mode()
def _scores(model: Scorer, batch: BasketBatch) -> Tensor:
    return model.score(batch)


@torch.inference_mode()
def _ranked(model: Scorer, batch: BasketBatch) -> Tensor:
    """(B, n), what the lists are made by."""
    return (
        VectorScorer.score(model, batch) if isinstance(model, VectorScorer) else model.score(batch)
    )


class PredictorContract:
    """What every predictor must do. A subclass says how it is built and which tables it predicts.

    Attributes:
        ranked: whether it ranks candidates; else it tells users apart.
        finds_colours: whether the best candidate of a user is of its colour. False for a predictor
            that ranks alike for all users. One that ranks none always has to.
        finds_new_items: whether that holds among candidates that the user has not had.
    """

    ranked: ClassVar[bool] = False
    finds_colours: ClassVar[bool] = True
    finds_new_items: ClassVar[bool] = True

    def config(self) -> dict[str, Any]:
        """The predictor's config, as its YAML file would give it, with `_target_`."""
        raise NotImplementedError

    def fitted(self, table: LabelTable, train: Tensor) -> Predictor:
        """A predictor, built and fitted from a fixed seed."""
        torch.manual_seed(0)
        predictor: Predictor = trust.build(self.config())
        return predictor.fit(table, train)

    @pytest.fixture(scope="class")
    @classmethod
    def table_and_rows(cls) -> TableAndRows:
        """The table, the rows to learn from and those to predict."""
        if cls.ranked:
            table = new_item_table()
            return table, table.phase(TRAIN), table.phase(TEST)
        table = colour_table()
        return table, *next(folds(table))

    @pytest.fixture(scope="class")
    @classmethod
    def scores(cls, table_and_rows: TableAndRows) -> Tensor:
        table, train, test = table_and_rows
        return cls().fitted(table, train).predict(table, test)

    def test_scores_are_finite(self, table_and_rows: TableAndRows, scores: Tensor) -> None:
        table, _, test = table_and_rows
        assert scores.shape == (len(test), len(table.candidates))
        assert scores.isfinite().all()

    def test_it_finds_what_is_there(self, table_and_rows: TableAndRows, scores: Tensor) -> None:
        table, _, test = table_and_rows
        if not self.ranked:
            labels = table.label_matrix(test)[:, 0].numpy()
            assert auroc(scores[:, 0].numpy(), labels)[0] > 0.95
        elif self.finds_colours:
            open_ = table.allowed(test) | (not self.finds_new_items)
            best = scores.masked_fill(~open_, -torch.inf).argmax(1)
            item = pl.Series(table.candidates.ids)[best.numpy()]
            user = table.rows["user_id"][test.numpy()]
            assert (item % 2 == user % 2).all()
        else:
            assert scores.equal(scores[:1].expand_as(scores))

    def test_a_row_scores_the_same_among_any_others(
        self, table_and_rows: TableAndRows, scores: Tensor
    ) -> None:
        table, train, test = table_and_rows
        again = self.fitted(table, train).predict(table, test.flip(0)[:5])
        torch.testing.assert_close(again, scores.flip(0)[:5], rtol=1e-4, atol=1e-5)

    def test_same_seed_gives_the_same_numbers(
        self, table_and_rows: TableAndRows, scores: Tensor
    ) -> None:
        table, train, test = table_and_rows
        assert self.fitted(table, train).predict(table, test).equal(scores)

    def test_all_of_it_is_on_one_device(self, table_and_rows: TableAndRows, scores: Tensor) -> None:
        table, train, test = table_and_rows
        with second_device():
            again = self.fitted(table, train).predict(table, test)
            assert again.device == torch.device("cpu")
        torch.testing.assert_close(again, scores, rtol=1e-3, atol=1e-4)

    def test_labels_of_the_rows_to_predict_are_not_read(
        self, table_and_rows: TableAndRows, scores: Tensor
    ) -> None:
        table, train, test = table_and_rows
        in_training = torch.isin(torch.arange(len(table)), train)
        known = table.labels.dense(len(table.candidates)) & in_training[:, None]
        labels = Ragged.from_lists([row.nonzero()[:, 0].tolist() for row in known])
        blind = replace(table, labels=labels)
        assert self.fitted(blind, train).predict(blind, test).equal(scores)
