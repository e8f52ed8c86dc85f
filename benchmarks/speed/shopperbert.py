"""A training step of ShopperBERT: tokens laid out in groups, beside windows padded to one length.

    python -m benchmarks.speed.shopperbert

Both sides are one network with the same weights, sizes and loss on the same masked baskets of the
training windows of Complete Journey, on one thread: forwards, backwards and AdamW's step. One lays
the tokens out as `recsys.nn.attention` does, the other pads each window to `max_length` and one
token, [CLS], and keeps attention from the padding by a mask, as is usual. That losses and gradients
are equal is checked before anything is timed. A token is an event of a window, masked or not.

Beside the times stands the share of the cells of the layout that hold no token: of every batch of
an epoch, at the batch sizes that a run may have.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from benchmarks.record import ROOT, alternate, ratio, spread, write
from recsys.batch.examples import Part
from recsys.batch.loader import Loader
from recsys.batch.ragged import Ragged
from recsys.data.sources.complete_journey import complete_journey
from recsys.log.filters import filtered
from recsys.models import ShopperBERT
from recsys.models.users.shopperbert import BidirectionalEncoder, Block, Encoder
from recsys.nn.attention import Layout
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split, global_time

RESULT = ROOT / "benchmarks/speed/results/shopperbert.json"
ATTRIBUTES = ["department", "product_category", "brand", "item_id"]
SIZES = Encoder(embedding_dim=64, num_layers=2, num_heads=2, ffn_dim=128, max_length=256)
BATCH_SIZE = 128


class PaddedEncoder(BidirectionalEncoder):
    """The same states from rows padded to `max_length` + 1 cells."""

    def forward(self, tokens: Tensor, rows: Ragged) -> tuple[Tensor, Tensor]:
        width = len(self.positions.weight)
        inside = torch.arange(width - 1) < rows.lengths[:, None]
        mean = tokens.new_zeros(len(rows), tokens.shape[1]).index_add(0, rows.owners(), tokens)
        x = tokens.new_zeros(len(rows), width, tokens.shape[1])
        x[:, 0] = self.cls + mean / rows.lengths.clamp(min=1)[:, None]
        x[:, 1:][inside] = tokens
        is_visible = F.pad(inside, (1, 0), value=True)[:, None, None]
        x = self.dropout(self.embedding_norm(x + self.positions.weight))
        for block in self.blocks:
            x = _padded(block, x, is_visible)
        x = self.norm(x)
        return x[:, 1:][inside], x[:, 0]


def _padded(block: Block, x: Tensor, is_visible: Tensor) -> Tensor:
    """A block on (B, L, D); attention reads the positions at `is_visible` (B, 1, 1, L) bool."""
    normed = block.projections(block.attention_norm(x))
    query, key, value = normed.unflatten(2, (3, block.num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(query, key, value, is_visible)
    x = x + block.dropout(block.joint(attended.transpose(1, 2).flatten(2)))
    return x + block.dropout(block.feed_forward(x))


def model_of(split: Split, encoder: type[BidirectionalEncoder]) -> ShopperBERT:
    """A model with weights from the seed, and an encoder of the class."""
    torch.manual_seed(0)
    model = ShopperBERT(
        split.num_items, attributes=ATTRIBUTES, num_classes=split.num_classes, encoder=SIZES
    )
    model.encoder.__class__ = encoder
    return model


class Noting(BidirectionalEncoder):
    """Notes the share of the cells of each batch's layout that hold no token, and does no more."""

    padding: list[float]

    def forward(self, tokens: Tensor, rows: Ragged) -> tuple[Tensor, Tensor]:
        offsets = rows.offsets + torch.arange(len(rows) + 1)  # with [CLS]
        layout = Layout.of(Ragged(torch.zeros(int(offsets[-1])), offsets))
        self.padding.append(layout.padding)
        return tokens, tokens.new_zeros(len(rows), tokens.shape[1])


def epoch(model: ShopperBERT, batches: list[Part]) -> Callable[[], None]:
    """Trains on some batches; the masked baskets are those of the seed."""
    optimizer = AdamW(model.parameters(), lr=1e-3, fused=True)

    def run() -> None:
        torch.manual_seed(0)
        for batch in batches:
            optimizer.zero_grad()
            model.loss(batch, Progress(0, 1)).backward()
            optimizer.step()

    return run


def check_equal(models: dict[str, ShopperBERT], batch: Part) -> float:
    """The loss of both sides without dropout; theirs, and their gradients, are equal."""
    results = []
    for model in models.values():
        model.eval()
        torch.manual_seed(0)
        loss = model.loss(batch, Progress(0, 1))
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
        model.train()
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)
    return float(results[0][0])


@torch.inference_mode()
def padding(model: ShopperBERT, windows: Part, batch_size: int) -> dict[str, Any]:
    """The share of cells that hold no token, of every batch of an epoch."""
    encoder = cast(Noting, model.encoder)
    encoder.padding = []
    torch.manual_seed(0)
    for batch in Loader(windows, batch_size, shuffle_seed=0):
        model.loss(batch, Progress(0, 1))
    return spread(encoder.padding)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, default=2, help="of each turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    log = filtered(complete_journey(), min_item_events=50)
    split = global_time(log, validation_start="2017-11-06", test_start="2017-12-04")
    models = {
        "groups": model_of(split, BidirectionalEncoder),
        "padded": model_of(split, PaddedEncoder),
    }
    windows, _ = (model.prepare(split) for model in models.values())
    torch.manual_seed(0)
    batches = list(islice(Loader(windows, BATCH_SIZE, shuffle_seed=0), options.batches))
    loss = check_equal(models, batches[0])
    tokens = sum(len(batch.history.items) for batch in batches)
    print(f"loss {loss:.4f} on both sides; {tokens} tokens a turn")
    sides = alternate(
        {name: epoch(model, batches) for name, model in models.items()}, repeats=options.repeats
    )
    for name, side in sides.items():
        side["tokens_per_cpu_second"] = round(tokens / side["cpu"]["median"])  # type: ignore[assignment]
        print(f"{name}: {side['tokens_per_cpu_second']} tokens a CPU second")
    noting = model_of(split, Noting)
    noting.prepare(split)
    shares = {str(size): padding(noting, windows, size) for size in (64, 128, 256)}
    for size, share in shares.items():
        print(f"{size} windows: padding {share['median']:.1%}, at most {share['max']:.1%}")
    record = {
        "threads": 1,
        "batch_size": BATCH_SIZE,
        "attributes": ATTRIBUTES,
        "encoder": asdict(SIZES),
        "windows": len(windows),
        "tokens": tokens,
        "loss": round(loss, 6),
        "sides": sides,
        "padding": shares,
        "ratios": {"padded/groups": ratio(sides, "padded", "groups")},
    }
    write(RESULT, record, packages=["recsys", "torch", "polars"], seed=0)


if __name__ == "__main__":
    main()
