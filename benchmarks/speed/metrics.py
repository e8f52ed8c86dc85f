"""Twelve metrics of 100,000 users' top-100 beside ranx, in one process, turn by turn.

    pip install ranx     # is no dependency of recsys
    python -m benchmarks.speed.metrics

Both start from ranked items and targets as tensors. ranx is given them as its documentation
prefers, as two dictionaries of string ids; of these it builds `Qrels` and `Run` and evaluates. The
ratio is taken against build and evaluation, without the dictionaries, and against evaluation
alone. Every user's value of every metric is compared.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from benchmarks.record import ROOT, alternate, ratio, spread, write
from recsys.batch.ragged import Ragged, offsets_of
from recsys.evaluation import metrics

try:
    import numba
    import ranx
except ImportError:
    raise SystemExit("ranx is not installed; `pip install ranx` to compare with it") from None

RESULT = ROOT / "benchmarks/speed/results/metrics.json"
KS = (10, 100)
THEIR_NAMES = {"phr": "hit_rate"}


def ranked_and_targets(users: int, items: int, k: int) -> tuple[Tensor, Ragged]:
    """Random lists without repeats; 1 to 19 targets a user, of which a tenth are in the list."""
    start = torch.randint(items, (users, 1))
    stride = torch.randint(1, items // k, (users, 1))
    ranked = (start + stride * torch.arange(k)) % items
    lengths = torch.randint(1, 20, (users,))
    owners = torch.arange(users).repeat_interleave(lengths)
    anywhere = torch.randint(items, owners.shape)
    from_list = ranked[owners, torch.randint(k, owners.shape)]
    values = torch.where(torch.rand(owners.shape) < 0.1, from_list, anywhere)
    return ranked, Ragged(values, offsets_of(lengths)).distinct(items)


def dictionaries(ranked: Tensor, targets: Ragged) -> tuple[dict, dict]:
    """What ranx starts from: targets of relevance 1, and scores that fall by place."""
    users = [f"{user:08}" for user in range(len(ranked))]  # ranx sorts them as text
    k = ranked.shape[1]
    relevant = targets.values.split(targets.lengths.tolist())
    qrels = {u: {str(i): 1 for i in row.tolist()} for u, row in zip(users, relevant, strict=True)}
    run = {
        u: {str(i): float(k - place) for place, i in enumerate(row)}
        for u, row in zip(users, ranked.tolist(), strict=True)
    }
    return qrels, run


def measure(users: int, items: int, repeats: int) -> dict[str, Any]:
    ranked, targets = ranked_and_targets(users, items, max(KS))
    names = {f"{THEIR_NAMES.get(m, m)}@{k}": f"{m}@{k}" for k in KS for m in metrics.METRICS}
    results: dict[str, Any] = {}

    def ours() -> None:
        hits = metrics.hits(ranked, targets, items)
        results["ours"] = metrics.per_user(hits, targets.lengths, KS)
        results["means"] = {name: value.mean().item() for name, value in results["ours"].items()}

    def ranx_dictionaries() -> None:
        results["dictionaries"] = dictionaries(ranked, targets)

    def ranx_build() -> None:
        qrels, run = results.pop("dictionaries")
        results["built"] = ranx.Qrels(qrels), ranx.Run(run)

    def ranx_evaluate() -> None:
        qrels, run = results.pop("built")
        results["ranx"] = ranx.evaluate(qrels, run, list(names), return_mean=False)

    steps = (ours, ranx_dictionaries, ranx_build, ranx_evaluate)
    sides = alternate({step.__name__: step for step in steps}, repeats=repeats)
    sides["ranx"] = {
        clock: spread(
            build + evaluate
            for build, evaluate in zip(
                sides["ranx_build"][clock]["values"],
                sides["ranx_evaluate"][clock]["values"],
                strict=True,
            )
        )
        for clock in ("wall", "cpu")
    }
    return {
        "users": users,
        "items": items,
        "k": max(KS),
        "means": results["means"],
        "largest_difference": _largest_difference(results, names, targets.lengths),
        "sides": sides,
        "ratios": {
            f"ours/{side}": ratio(sides, "ours", side) for side in ("ranx", "ranx_evaluate")
        },
    }


def _largest_difference(
    results: dict[str, Any], names: dict[str, str], num_targets: Tensor
) -> dict[str, float]:
    """Over users, by metric. ranx divides average precision by T, recsys by min(k, T)."""
    differences = {}
    for theirs, ours in names.items():
        expected = torch.from_numpy(results["ranx"][theirs])
        metric, _, k = ours.partition("@")
        if metric == "map":
            expected = expected * num_targets / num_targets.clamp(max=int(k))
        differences[ours] = (results["ours"][ours] - expected).abs().max().item()
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    numba.set_num_threads(options.threads)
    measured = measure(options.users, options.items, options.repeats)
    for name, side in measured["sides"].items():
        print(f"{name}: {side['wall']['median']:.3f} s wall, {side['cpu']['median']:.3f} s CPU")
    for name, clocks in measured["ratios"].items():
        inverse = {clock: 1 / clocks[clock]["median"] for clock in ("wall", "cpu")}
        print(f"{name}: 1/{inverse['wall']:.0f} wall, 1/{inverse['cpu']:.0f} CPU")
    print(f"largest difference of a value: {max(measured['largest_difference'].values()):.1e}")
    write(
        RESULT,
        {"threads": options.threads} | measured,
        packages=["torch", "ranx", "numba", "numpy"],
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
