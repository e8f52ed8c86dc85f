"""Every model on the checkerboard, on the CPU and on the device: equal scores, metrics alike.

    python -m benchmarks.gpu.families --device cuda

`asked_there` is the model that was trained on the CPU, whose scores must agree. `trained_there`
drew other random numbers, so that its metric is only to be about as good. Networks that predict
labels are trained and evaluated on each device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu.card import keep, options_of
from recsys import models
from recsys.devices import running_on
from recsys.evaluation.binary_metrics import auroc
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.log.words import Template
from recsys.models.graphs import Alike, Autoencoder, Frequency
from recsys.models.language import Language, Ranking
from recsys.models.language.decoders import Decoder
from recsys.models.sequences import SingularVectors
from recsys.models.users.shopperbert import Encoder
from recsys.nn.distributions import TweedieHead
from recsys.scoring import saved_model
from recsys.scoring.kinds import members_of
from recsys.scoring.predictor import Predictor, Steps
from recsys.scoring.recommender import Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.as_of import folds
from recsys.tasks.features import Counts
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard, colour_table
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

PROTOCOL = Protocol(ks=(5,))
METRIC = "ndcg@5"
WORSE = 0.1
"""Of the metric, as other random numbers may have it."""

PLAIN = ("Popularity", "PersonalTop", "DecayedPersonal", "UPCF", "TIFUKNN")
PLAIN += ("ItemKNN", "OwnChain", "EASE", "IALS", "Markov", "TextTFIDF")
BERT = {"embedding_dim": 16, "num_layers": 1, "ffn_dim": 32, "max_length": 32}
DECODER = {"num_layers": 1, "embedding_dim": 16, "num_heads": 2, "ffn_dim": 32}


def scorers(split: Split) -> dict[str, Callable[[], Scorer]]:
    """Every model that ranks, in a small shape."""
    n = split.num_items
    makers: dict[str, Callable[[], Scorer]] = {name: getattr(models, name) for name in PLAIN}
    makers |= {
        "BPRMF": lambda: models.BPRMF(n, len(split.users), embedding_dim=8, learning_rate=0.05),
        "CountVAE": lambda: models.CountVAE(
            n,
            head=TweedieHead(),
            embedding_dim=16,
            latent_dim=8,
            kl_steps=100,
            learning_rate=0.02,
        ),
        "DNNTSP": lambda: models.DNNTSP(n, embedding_dim=16, learning_rate=0.03),
        "GLOIE": lambda: models.GLOIE(
            n,
            embedding_dim=16,
            autoencoder=Autoencoder(TweedieHead(), latent_dim=8, kl_steps=100, elbo_weight=0.1),
            alike=Alike(localities=(1, 5)),
            frequency=Frequency(personal=True, item_dim=4),
            learning_rate=0.02,
        ),
        "CrossDomain": lambda: models.CrossDomain(
            n,
            num_classes=split.num_classes,
            column="colour",
            embedding_dim=16,
            learning_rate=0.01,
        ),
        "EncGAN": lambda: models.EncGAN(
            n, num_classes=split.num_classes, column="colour", embedding_dim=16, latent_dim=8
        ),
        "ConditionalAutoencoder": lambda: models.ConditionalAutoencoder(
            n, num_classes=split.num_classes, column="colour", embedding_dim=16, latent_dim=8
        ),
        "NextPlace": lambda: models.NextPlace(n, learning_rate=0.02),
        "UniSRec": lambda: models.UniSRec(
            n, text=SingularVectors(dim=1), use_id=True, embedding_dim=16, learning_rate=0.01
        ),
        "SASRec": lambda: models.SASRec(n, embedding_dim=16, learning_rate=0.01),
        "ShopperBERT": lambda: shopperbert(split),
        "LMRec": lambda: models.LMRec(
            n,
            decoder=Decoder(vocab_size=300, **DECODER),  # type: ignore[arg-type]
            template=Template(),
            language=Language(batch_size=2, row_length=64),
            ranking=Ranking(),
            learning_rate=0.02,
        ),
    }
    both = {"bpr_mf": makers["BPRMF"], "markov": makers["Markov"]}
    makers["Hybrid"] = lambda: models.Hybrid(
        members={name: make() for name, make in both.items()},
        weights={"bpr_mf": 1.0, "markov": 0.5},
    )
    return makers


def shopperbert(split: Split) -> Scorer:
    return models.ShopperBERT(
        split.num_items,
        attributes=["colour", "item_id"],
        num_classes=split.num_classes,
        encoder=Encoder(**BERT),
        learning_rate=0.02,
    )


def ranked(
    make: Callable[[], Scorer], split: Split, device: torch.device, epochs: int
) -> dict[str, Any]:
    """A model's metric here and there, and the largest difference of its scores."""
    here = trained(make, split, "cpu", epochs)
    history = split.test.history
    there = deepcopy(here).to(device)
    with torch.inference_mode():
        scores, moved = here.score(history), there.score(history.to(device)).cpu()
    means = {
        "trained_here": measured(here, split),
        "asked_there": measured(there, split),
        "trained_there": measured(trained(make, split, str(device), epochs), split),
    }
    agrees = torch.allclose(moved, scores, rtol=1e-3, atol=1e-4)
    learns = any(isinstance(m, Recommender) for m in (here, *(m for _, m in members_of(here))))
    allowed = WORSE if learns else 1e-3
    as_good = means["trained_there"] >= means["trained_here"] - allowed
    difference = float((moved - scores).abs().max())
    return {**means, "largest_difference": difference, "alike": bool(agrees and as_good)}


def trained(make: Callable[[], Scorer], split: Split, device: str, epochs: int) -> Scorer:
    torch.manual_seed(0)
    training = TrainingOptions(
        max_epochs=epochs,
        batch_size=16,
        monitor=METRIC,
        evaluate_every=max(epochs // 3, 1),
        device=device,
    )
    return fit(make(), split, training, PROTOCOL)


def measured(model: Scorer, split: Split) -> float:
    return round(evaluate(model, split.test, PROTOCOL).means[METRIC], 6)


def predictors(split: Split, place: Path) -> dict[str, Callable[[], Predictor]]:
    """Every network that predicts labels."""
    config = {
        "_target_": "recsys.models.ShopperBERT",
        "num_items": split.num_items,
        "attributes": ["colour", "item_id"],
        "num_classes": split.num_classes,
        "encoder": {"_target_": "recsys.models.users.Encoder", **BERT},
        "learning_rate": 0.02,
    }
    model = trained(lambda: shopperbert(split), split, "cpu", 2)
    saved_model.save(place / "model", model, split, config, mask_history=False)
    steps = Steps(learning_rate=0.03, batch_size=12, max_epochs=10)
    return {
        "MLP": lambda: models.MLP(features=[Counts("item_id")], steps=steps, num_members=2),
        "FineTuned": lambda: models.FineTuned(run=str(place), steps=steps),
    }


def predicted(make: Callable[[], Predictor], device: torch.device) -> dict[str, Any]:
    """AUROC of a predictor that was trained here, and of one there."""
    aurocs = {}
    for name, where in (("trained_here", torch.device("cpu")), ("trained_there", device)):
        table = colour_table()
        train, test = next(folds(table))
        with running_on(where):
            scores = make().fit(table, train).predict(table, test)
        labels = table.label_matrix(test)[:, 0].numpy()
        aurocs[name] = float(auroc(scores[:, 0].numpy(), labels)[0])
    return {**aurocs, "alike": aurocs["trained_there"] >= aurocs["trained_here"] - WORSE}


def main() -> int:
    device, small, folder = options_of(__doc__)
    split = last_basket(checkerboard())
    results: dict[str, Any] = {}

    def note(name: str, work: Callable[[], dict[str, Any]]) -> None:
        started = time.perf_counter()
        results[name] = work()
        results[name]["seconds"] = round(time.perf_counter() - started, 2)
        print(name, results[name], flush=True)
        keep(folder / "families.json", device, {"metric": METRIC, "families": results})

    with TemporaryDirectory() as place:
        for name, make in scorers(split).items():
            note(name, lambda m=make: ranked(m, split, device, 3 if small else 30))
        for name, make_predictor in predictors(split, Path(place)).items():
            note(name, lambda m=make_predictor: predicted(m, device))
    wrong = [name for name, row in results.items() if not row["alike"]]
    print(f"not alike: {', '.join(wrong) or 'none'}")
    if device.type == "cpu":
        print("the device is the CPU: both sides are the same")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
