"""The contract of `recsys.testing.contracts` for every model of the zoo."""

import re
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import recsys.models
from recsys.batch.histories import BasketBatch
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.log.event_log import EventLog
from recsys.retrieval.lists import top_k
from recsys.scoring import saved_model
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split, last_basket
from recsys.testing.contracts import ModelContract
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions
from recsys.training.true_precision import TruePrecision

DTYPES = TruePrecision.DTYPES


class Defaults(ModelContract):
    """A model with the options that it has by default."""

    name: str

    def config(self, split: Split) -> dict[str, Any]:
        return {"_target_": f"recsys.models.{self.name}"}


class TestPopularity(Defaults):
    finds_colours = finds_new_items = False
    name = "Popularity"


class TestPersonalTop(Defaults):
    finds_new_items = False
    name = "PersonalTop"


class TestDecayedPersonal(Defaults):
    finds_new_items = False
    ranks_newcomers = True
    name = "DecayedPersonal"


class TestOwnChain(Defaults):
    finds_new_items = False
    name = "OwnChain"

    def test_masks_the_history(self, model: Scorer, split: Split) -> None:
        """It knows nothing of what a user has not had: these are ranked by popularity."""
        history = split.test.history
        top = model.top_k(history, self.k, mask_history=True)
        popular = (
            model.popularity.expand(len(history), -1).masked_fill(history.counts() > 0, -1).double()
        )
        assert top.items.equal(top_k(popular, self.k).items)


class TestUPCF(Defaults):
    name = "UPCF"


class TestTIFUKNN(ModelContract):
    def config(self, split: Split) -> dict[str, Any]:
        return {"_target_": "recsys.models.TIFUKNN", "num_neighbors": 10}


class TestItemKNN(Defaults):
    name = "ItemKNN"


class TestEASE(Defaults):
    name = "EASE"


class TestIALS(Defaults):
    name = "IALS"


class TestMarkov(Defaults):
    name = "Markov"


class TestTextTFIDF(Defaults):
    name = "TextTFIDF"


class TestBPRMF(ModelContract):
    ranks_newcomers = True

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.BPRMF",
            "num_items": split.num_items,
            "num_users": len(split.users),
            "embedding_dim": 8,
            "learning_rate": 0.05,
        }


class TestCountVAE(ModelContract):
    ranks_newcomers = True

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.CountVAE",
            "num_items": split.num_items,
            "head": {"_target_": "recsys.nn.TweedieHead"},
            "embedding_dim": 16,
            "latent_dim": 8,
            "kl_steps": 100,
            "learning_rate": 0.02,
        }


class TestDNNTSP(ModelContract):
    """On more users and baskets: what it adds to an item's own score is learnt of targets alone."""

    finds_new_items = False
    ranks_newcomers = True
    training = TrainingOptions(
        max_epochs=40, batch_size=64, monitor="ndcg@5", evaluate_every=10, device="cpu"
    )

    @pytest.fixture(scope="class")
    @classmethod
    def split(cls) -> Split:
        return last_basket(checkerboard(num_users=240, num_baskets=14))

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.DNNTSP",
            "num_items": split.num_items,
            "embedding_dim": 16,
            "learning_rate": 0.03,
        }


def part(name: str, **options: Any) -> dict[str, Any]:
    """A section of GLOIE's."""
    return {"_target_": f"recsys.models.graphs.{name}", **options}


class TestGLOIE(ModelContract):
    """In the paper's shape; on so few users the autoencoder's loss weighs more."""

    ranks_newcomers = True
    training = TrainingOptions(
        max_epochs=40, batch_size=30, monitor="ndcg@5", evaluate_every=10, device="cpu"
    )

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.GLOIE",
            "num_items": split.num_items,
            "autoencoder": part(
                "Autoencoder",
                head={"_target_": "recsys.nn.TweedieHead"},
                latent_dim=8,
                kl_steps=100,
                elbo_weight=0.1,
            ),
            "embedding_dim": 16,
            "graph": part("Graph", num_heads=2),
            "learning_rate": 0.02,
        }


class TestGLOIEWithEveryExtra(TestGLOIE):
    """Beyond the paper."""

    training = TrainingOptions(
        max_epochs=20, batch_size=60, monitor="ndcg@5", evaluate_every=10, device="cpu"
    )

    def config(self, split: Split) -> dict[str, Any]:
        return {
            **super().config(split),
            "ranking": part(
                "Ranking", softmax=True, ndcg_at=5, num_targets=None, latest_popularity=True
            ),
            "alike": part("Alike", localities=[1, 5]),
            "frequency": part("Frequency", personal=True, calendar=True, item_dim=3),
        }


class TestSASRec(ModelContract):
    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.SASRec",
            "num_items": split.num_items,
            "embedding_dim": 16,
            "encoder": {"_target_": "recsys.models.sequences.Encoder", "num_heads": 2},
            "learning_rate": 0.01,
        }


class TestSASRecWithText(TestSASRec):
    def config(self, split: Split) -> dict[str, Any]:
        text = {"_target_": "recsys.models.sequences.SingularVectors", "dim": 1}
        return {**super().config(split), "text": text}


class TestSASRecWithThePapersLoss(TestSASRec):
    def config(self, split: Split) -> dict[str, Any]:
        target = {"_target_": "recsys.models.sequences.Ranking"}
        return {**super().config(split), "ranking": target | {"softmax": False, "num_negatives": 1}}


class TestUniSRec(ModelContract):
    def config(self, split: Split) -> dict[str, Any]:
        def part(name: str, **options: Any) -> dict[str, Any]:
            return {"_target_": f"recsys.models.sequences.{name}", **options}

        return {
            "_target_": "recsys.models.UniSRec",
            "num_items": split.num_items,
            "text": part("SingularVectors", dim=1),
            "use_id": True,
            "embedding_dim": 16,
            "experts": part("Experts", num_experts=2),
            "encoder": part("Encoder", num_heads=2),
            "learning_rate": 0.01,
        }


class TestCrossDomain(ModelContract):
    """Each colour is a domain."""

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.CrossDomain",
            "num_items": split.num_items,
            "num_classes": split.num_classes,
            "column": "colour",
            "readings": {"_target_": "recsys.models.domains.Readings", "whole_in_loss": 0.5},
            "embedding_dim": 16,
            "learning_rate": 0.01,
        }


class TestEncGAN(ModelContract):
    """Each colour is a domain."""

    name = "EncGAN"

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": f"recsys.models.{self.name}",
            "num_items": split.num_items,
            "num_classes": split.num_classes,
            "column": "colour",
            "embedding_dim": 16,
            "latent_dim": 8,
            "hidden_dim": 16,
            "learning_rate": 0.01,
        }


class TestConditionalAutoencoder(TestEncGAN):
    name = "ConditionalAutoencoder"


class TestNextPlace(ModelContract):
    ranks_newcomers = True

    def config(self, split: Split) -> dict[str, Any]:
        return {"_target_": "recsys.models.NextPlace", "num_items": split.num_items}


@pytest.mark.slow
class TestNextPlaceWithAUsersOwnEvents(TestNextPlace):
    """Repeats the user's own items; so few events teach little of the others' colours."""

    finds_colours = finds_new_items = False

    def config(self, split: Split) -> dict[str, Any]:
        return {**super().config(split), "own": {"_target_": "recsys.models.sequences.OwnPointer"}}


class TestShopperBERT(ModelContract):
    """An item is its colour and its id."""

    ranks_newcomers = True

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.ShopperBERT",
            "num_items": split.num_items,
            "attributes": ["colour", "item_id"],
            "num_classes": split.num_classes,
            "encoder": {
                "_target_": "recsys.models.users.Encoder",
                "embedding_dim": 16,
                "num_layers": 1,
                "ffn_dim": 32,
                "max_length": 32,
            },
            "learning_rate": 0.02,
        }


class TestLMRec(ModelContract):
    """In the words of the items alone."""

    ranks_newcomers = True
    training = TrainingOptions(
        max_epochs=20, batch_size=20, monitor="ndcg@5", evaluate_every=10, device="cpu"
    )

    def config(self, split: Split) -> dict[str, Any]:
        def part(name: str, **options: Any) -> dict[str, Any]:
            return {"_target_": f"recsys.models.language.{name}", **options}

        shape = {"num_layers": 1, "embedding_dim": 16, "num_heads": 2, "ffn_dim": 32}
        return {
            "_target_": "recsys.models.LMRec",
            "num_items": split.num_items,
            "decoder": part("Decoder", vocab_size=300, **shape),
            "template": {"_target_": "recsys.log.Template"},
            "language": part("Language", batch_size=2, row_length=64),
            "ranking": part("Ranking"),
            "learning_rate": 0.02,
        }


@pytest.mark.slow
class TestLMRecLikePolyglotKo(TestLMRec):
    """GPT-NeoX's blocks that turn half of a head's dimensions, and a head of its own for tokens."""

    decoder: ClassVar[dict[str, Any]] = {"tied": False, "semantic_start": False}
    attention: ClassVar[dict[str, Any]] = {"rotary_share": 0.5}

    def config(self, split: Split) -> dict[str, Any]:
        config = super().config(split)
        target = "recsys.models.language.Attention"
        config["decoder"] |= {**self.decoder, "attention": {"_target_": target, **self.attention}}
        return config


class TestLMRecLikeLlama(TestLMRecLikePolyglotKo):
    """Llama's blocks with heads that share keys and values, as HyperCLOVA X SEED of 0.5B."""

    decoder: ClassVar[dict[str, Any]] = {"family": "llama", "semantic_start": False}
    attention: ClassVar[dict[str, Any]] = {"num_kv_heads": 1, "head_dim": 12}


@pytest.mark.skipif(
    not hasattr(transformers, "HyperCLOVAXConfig"), reason="came with transformers 5.9"
)
class TestLMRecLikeHyperCLOVAX(TestLMRecLikePolyglotKo):
    """HyperCLOVA X's blocks, as SEED Think of 14B."""

    decoder: ClassVar[dict[str, Any]] = {
        "family": "hyperclovax",
        "tied": False,
        "semantic_start": False,
    }
    attention: ClassVar[dict[str, Any]] = {"num_kv_heads": 1}


@pytest.mark.slow
class TestLMRecWithFrozenTexts(TestLMRec):
    """Histories as rows of [EOS] with vectors of ids and texts, beside the language modelling."""

    def config(self, split: Split) -> dict[str, Any]:
        text = {"_target_": "recsys.models.sequences.SingularVectors", "dim": 1}
        frozen = {"_target_": "recsys.models.language.FrozenTexts", "read_words": False}
        ids = {"_target_": "recsys.models.language.Ids", "use_ids": True}
        return {**super().config(split), "ids": ids, "frozen_texts": {**frozen, "text": text}}


class TestHybridWithoutNewcomers(ModelContract):
    """No member says anything of a user without a history."""

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.Hybrid",
            "members": {"ease": TestEASE().config(split), "tifuknn": TestTIFUKNN().config(split)},
            "weights": {"ease": 1.0, "tifuknn": 0.5},
        }


class TestHybrid(ModelContract):
    """Of a model with a loss and one in closed form."""

    ranks_newcomers = True

    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.Hybrid",
            "members": {"bpr_mf": TestBPRMF().config(split), "markov": TestMarkov().config(split)},
            "weights": {"bpr_mf": 1.0, "markov": 0.5},
        }


@pytest.mark.parametrize(
    "contract", [case for name, case in list(globals().items()) if name.startswith("Test")]
)
def test_one_item_and_two_users(contract: type[ModelContract]) -> None:
    rows = [(u, 7, datetime(2024, 1, 1 + day), 5 * u + day) for u in range(2) for day in range(5)]
    columns = ["user_id", "item_id", "timestamp", "basket_id"]
    texts = [" ".join(f"word{n}" for n in range(70))]
    items = pl.DataFrame({"item_id": [7], "colour": ["red"], "text": texts})
    split = last_basket(EventLog.from_frames(pl.DataFrame(rows, columns, orient="row"), items))
    config = contract().config(split)
    if "SingularVectors" in str(config):
        pytest.skip("one text has no words in common with others")
    training = TrainingOptions(max_epochs=1, batch_size=2, monitor="ndcg@1", device="cpu")
    model = fit(saved_model.build(config), split, training, Protocol(ks=(1,)))
    everyone = evaluate(model, split.test, Protocol(ks=(1,)))
    assert everyone.means["recall@1"] == 1.0
    newcomer = BasketBatch.from_lists([[]], 1)
    assert model.top_k(newcomer, 1).items.tolist() == [[0]]
    assert model.top_k(split.test.history, 1, mask_history=True).items.tolist() == [[-1], [-1]]


TRAINED = [
    TestBPRMF,
    TestCountVAE,
    TestDNNTSP,
    TestGLOIE,
    TestGLOIEWithEveryExtra,
    TestSASRec,
    TestSASRecWithText,
    TestSASRecWithThePapersLoss,
    TestUniSRec,
    TestNextPlace,
    TestCrossDomain,
    TestEncGAN,
    TestConditionalAutoencoder,
    TestShopperBERT,
    TestLMRec,
    TestLMRecWithFrozenTexts,
    TestHybrid,
]
FAST = (TestGLOIE, TestSASRec)


@pytest.mark.parametrize("precision", TruePrecision.DTYPES)
@pytest.mark.parametrize(
    "contract",
    [pytest.param(c, marks=[] if c in FAST else pytest.mark.slow) for c in TRAINED],
)
def test_weights_of_any_precision(
    contract: type[ModelContract], precision: str, tmp_path: Path
) -> None:
    """Trained as float32 is, evaluated, saved, loaded and asked."""
    split = last_basket(checkerboard())
    config, history, dtype = contract().config(split), split.test.history, DTYPES[precision]
    protocol, losses = Protocol(ks=(5,)), {}
    for each in ("32-true", precision):
        training = replace(contract.training, max_epochs=2, evaluate_every=1, precision=each)
        torch.manual_seed(0)
        model = saved_model.build(config)
        fit(model, split, training, protocol, folder=tmp_path / each)
        (curve,) = (tmp_path / each).rglob("train.csv")
        losses[each] = pl.read_csv(curve)["train/loss"].to_list()
    assert losses[precision] == pytest.approx(losses["32-true"], rel=0.1)
    assert {p.dtype for p in model.parameters()} == {dtype}
    scores = scores_of(model, history)
    assert scores.dtype in (torch.float32, torch.float64)
    assert alike(scores, scores_of(deepcopy(model).float(), history)) > 0.99
    assert evaluate(model, split.test, protocol).means["recall@5"] > 0.0
    saved_model.save(tmp_path / "model", model, split, config, mask_history=False)
    saved = load_file(tmp_path / "model/weights.safetensors")
    assert {saved[n].dtype for n, _ in model.named_parameters() if n in saved} == {dtype}
    loaded = saved_model.load(tmp_path)
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    assert scores_of(loaded.model, history).equal(scores)
    assert len(loaded.recommend([0, 1], k=5)) == 10


def test_every_trained_model_is_asked_for_weights_of_any_precision() -> None:
    names = {case.__name__.removeprefix("Test").partition("With")[0] for case in TRAINED}
    trained = {
        n for n in recsys.models.__all__ if issubclass(getattr(recsys.models, n), Recommender)
    }
    assert names == trained | {"Hybrid"}


def alike(scores: Tensor, others: Tensor) -> float:
    """How alike two orders of the items are, a correlation of ranks over all users."""
    ranks = [each.argsort(1).argsort(1).double().flatten() for each in (scores, others)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


@torch.inference_mode()
def scores_of(model: Scorer, batch: BasketBatch) -> Tensor:
    return model.score(batch)


def test_every_model_keeps_the_contract() -> None:
    tested = {name.removeprefix("Test") for name in globals() if name.startswith("Test")}
    models = {name for name in recsys.models.__all__ if is_scorer(name)}
    assert {re.split("With|Like|On(?=A)", name)[0] for name in tested} == models


def is_scorer(name: str) -> bool:
    """Whether a model says what comes next; the others predict labels."""
    return issubclass(getattr(recsys.models, name), Scorer)
