"""One place turns a name into a device, and everything that runs models follows it."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.devices import device_of, devices, place_of, running_on
from recsys.errors import ConfigError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.models import BPRMF, EASE, Hybrid, Popularity
from recsys.scoring import saved_model
from recsys.scoring.scorer import ClosedForm, Scorer
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.testing.second_device import second_device
from recsys.training.loop import fit
from recsys.training.options import PRECISIONS, TrainingOptions
from recsys.training.true_precision import TruePrecision

PROTOCOL = Protocol(ks=(5,))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


def bpr_mf(split: Split) -> BPRMF:
    return BPRMF(split.num_items, len(split.users), embedding_dim=4)


def training(**options: Any) -> TrainingOptions:
    return TrainingOptions(**{"max_epochs": 2, "batch_size": 16, "monitor": "ndcg@5", **options})


def places(model: Scorer) -> set[torch.device]:
    return {tensor.device for tensor in chain(model.parameters(), model.buffers())}


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:7", "mps", "meta", "a device"])
def test_a_device_that_is_not_there_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"^device={name}: there is cpu or auto; choose"):
        device_of(name)


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    names = {name: str(device) for name, device in devices().items() if name != "mps"}
    assert names == {"cpu": "cpu", "cuda": "cuda:0", "cuda:0": "cuda:0", "cuda:1": "cuda:1"}
    assert device_of("auto") == device_of("cuda") == torch.device("cuda:0")
    with running_on("cuda:1"):
        assert device_of() == torch.device("cuda:1")
        with running_on("cpu"):
            assert device_of() == CPU
        assert device_of("cuda") == torch.device("cuda:0")
    assert device_of() == torch.device("cuda:0")


def test_without_a_gpu_auto_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of() == place_of(torch.nn.ReLU()) == CPU


class LeftElsewhere(Popularity):
    """A member that does not come back from the second device."""

    def fit(self, split: Split) -> "LeftElsewhere":
        super().fit(split)
        return self.to(torch.device("meta"))


def members(split: Split) -> dict[str, ClosedForm]:
    return {"ease": EASE(), "popularity": Popularity()}


def test_all_members_end_on_the_device_of_the_training(split: Split) -> None:
    weights = {"ease": 1.0, "popularity": 0.5}
    here = fit(Hybrid(members=members(split), weights=weights), split, training(), PROTOCOL)
    assert places(here) == {CPU}
    expected = evaluate(here, split.test, PROTOCOL).means
    with second_device() as there:
        model = fit(Hybrid(members=members(split), weights=weights), split, training(), PROTOCOL)
        assert places(model) == {there}
        assert evaluate(model, split.test, PROTOCOL).means == pytest.approx(expected)


def test_a_member_that_was_left_elsewhere_is_fetched(split: Split) -> None:
    with second_device():
        both = {"ease": EASE(), "popularity": LeftElsewhere()}
        hybrid = Hybrid(members=both, weights={"ease": 1.0, "popularity": 0.5})
        model = fit(hybrid, split, training(device="cpu"), PROTOCOL)
        assert places(model) == {CPU}
        assert evaluate(model, split.test, PROTOCOL).means["recall@5"] > 0


@pytest.mark.gpu
def test_members_with_a_loss_and_in_closed_form_are_asked_together_on_a_gpu(
    cuda: str, split: Split, tmp_path: Path
) -> None:
    both = {"bpr_mf": bpr_mf(split), "ease": EASE()}
    hybrid = Hybrid(members=both, weights={"bpr_mf": 0.5, "ease": 1.0})
    model = fit(hybrid, split, training(device=cuda), PROTOCOL)
    assert places(model) == {torch.device("cuda:0")}
    there = evaluate(model, split.test, PROTOCOL).means
    assert there == pytest.approx(evaluate(model.to("cpu"), split.test, PROTOCOL).means, rel=1e-3)
    again = fit(model.to(cuda), split, training(device="cpu"), PROTOCOL)
    assert places(again) == {CPU}


def test_a_saved_model_is_asked_where_it_was_loaded(split: Split, tmp_path: Path) -> None:
    model = fit(bpr_mf(split), split, training(device="cpu"), PROTOCOL)
    config = {"_target_": "recsys.models.BPRMF", "num_items": split.num_items}
    config |= {"num_users": len(split.users), "embedding_dim": 4}
    saved_model.save(tmp_path / "model", model, split, config, mask_history=True)
    here = saved_model.load(tmp_path, device="cpu")
    lists, vectors = here.recommend([3, 1], k=4), here.vectors()
    with second_device() as there:
        saved = saved_model.load(tmp_path)
        assert saved.device == there
        assert places(saved.model) == {there}
        assert saved.recommend([3, 1], k=4).equals(lists)
        assert saved.recommend(histories=[[3], [[1, 2]]], k=4)["rank"].max() == 4
        assert all(a.equals(b) for a, b in zip(saved.vectors(), vectors, strict=True))
        assert saved.to("cpu").device == CPU
        assert saved_model.load(tmp_path, device="cpu").device == CPU
    with pytest.raises(ConfigError, match="device=tpu: there is cpu"):
        saved_model.load(tmp_path, device="tpu")
    with pytest.raises(ConfigError, match="device=tpu: there is cpu"):
        here.to("tpu")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_trains_or_says_what_does(precision: str, split: Split) -> None:
    torch.manual_seed(0)
    options = training(device="cpu", precision=precision, max_epochs=20, evaluate_every=5)
    if precision == "16-mixed":
        with pytest.raises(ConfigError, match="precision=16-mixed needs a GPU; use bf16-mixed or"):
            fit(bpr_mf(split), split, options, PROTOCOL)
        return
    model = fit(bpr_mf(split), split, options, PROTOCOL)
    dtype = TruePrecision.DTYPES.get(precision, torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    best = model.top_k(split.test.history, 5).items
    assert (best % 2 == split.test.history.users[:, None] % 2).double().mean() > 0.9


@pytest.mark.parametrize("precision", ["8-true", "half"])
def test_a_precision_that_is_not_offered_is_an_error(precision: str) -> None:
    message = f"precision={precision} is not offered; .* 32-true, 16-mixed, bf16-mixed"
    options = training()
    object.__setattr__(options, "precision", precision)  # types are checked in tests alone
    with pytest.raises(ConfigError, match=message):
        options.__post_init__()
