"""EncGAN: its map has an exact inverse, and equal z means the same on every manifold."""

from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import jacobian

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.evaluation.ranking import evaluate
from recsys.log.event_log import EventLog
from recsys.models import ConditionalAutoencoder, EncGAN
from recsys.models.domains import Terms
from recsys.models.domains.encgan import Critic, ManifoldMap, draw
from recsys.scoring.recommender import Progress
from recsys.tasks.domains import having_targets_in
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

CLASSES = {"shop": 2}


def a_map(dim: int = 5, latent_dim: int = 2, *, seed: int = 0, **options: Any) -> ManifoldMap:
    """With weights as far from the identity as training takes them."""
    torch.manual_seed(seed)
    of_three = ManifoldMap(3, dim=dim, latent_dim=latent_dim, hidden_dim=8, **options)
    with torch.no_grad():
        for parameter in of_three.parameters():
            parameter += torch.randn_like(parameter) * 0.5
    return of_three


@given(
    dim=st.integers(2, 9),
    num_layers=st.integers(1, 5),
    seed=st.integers(0, 1000),
    data=st.data(),
)
@settings(max_examples=30, deadline=None)
def test_the_inverse_is_exact(dim: int, num_layers: int, seed: int, data: st.DataObject) -> None:
    latent_dim = data.draw(st.integers(1, dim - 1))
    of_three = a_map(dim, latent_dim, seed=seed, num_layers=num_layers).double()
    points, manifolds = 3 * torch.randn(20, dim).double(), torch.arange(20) % 3
    latents, residuals = of_three(points, manifolds)
    torch.testing.assert_close(of_three.inverse(latents, manifolds, residuals), points)
    drawn = torch.randn(20, latent_dim).double()
    again, nothing = of_three(of_three.inverse(drawn, manifolds), manifolds)
    torch.testing.assert_close(again, drawn)
    torch.testing.assert_close(nothing, torch.zeros_like(nothing))


def test_the_map_is_invertible_everywhere() -> None:
    of_three, manifold = a_map().double(), torch.tensor([1])
    for point in torch.randn(5, 5).double():
        slope = jacobian(lambda x: torch.cat(of_three(x[None], manifold), 1)[0], point)
        assert torch.linalg.det(slope).abs() > 1e-6


def test_manifolds_differ_by_biases_alone() -> None:
    """With equal biases equal z are equal points; and a bias changes its own manifold alone."""
    of_three, latents = a_map(), torch.randn(4, 2)
    with torch.no_grad():
        for name, parameter in of_three.named_parameters():
            if "bias" in name:
                parameter.copy_(parameter[:1].expand_as(parameter))
    first, second = (of_three.inverse(latents, torch.full((4,), m)) for m in (0, 2))
    assert first.equal(second)
    assert of_three.variance_of_biases() == 0
    with torch.no_grad():
        of_three.couplings[0].hidden_bias.bias[2] += 1
    assert of_three.inverse(latents, torch.full((4,), 0)).equal(first)
    assert not of_three.inverse(latents, torch.full((4,), 2)).allclose(second)
    assert of_three.variance_of_biases() > 0


def test_equal_z_is_the_same_place_on_every_manifold() -> None:
    """Two curves are learnt in seconds: reconstruction and critic, as in the benchmark."""
    torch.manual_seed(0)
    of_two = ManifoldMap(2, dim=2, latent_dim=1, hidden_dim=16)
    critic = Critic(2, dim=2, hidden_dim=32)
    steps = {m: torch.optim.Adam(m.parameters(), 3e-3, (0.0, 0.9)) for m in (of_two, critic)}
    for _ in range(200):
        t, which = 2 * torch.rand(64) - 1, torch.randint(2, (64,))
        points = torch.stack([t, t.square() / 2 + 2.0 * which], dim=1)
        drawn = of_two.inverse(draw(64, 1, like=points), which)
        steps[critic].zero_grad()
        critic.loss(points, drawn.detach(), which, gradient_penalty=1.0).backward()
        steps[critic].step()
        steps[of_two].zero_grad()
        rebuilt = of_two.inverse(of_two(points, which)[0], which)
        (10 * (rebuilt - points).square().mean() - critic(drawn, which).mean()).backward()
        steps[of_two].step()
    latents = torch.linspace(-0.9, 0.9, 50)[:, None]
    curves = [of_two.inverse(latents, torch.full((50,), m)) for m in (0, 1)]
    along = torch.stack([curve[:, 0] for curve in curves])
    assert torch.corrcoef(along)[0, 1].abs() > 0.99
    for which, curve in enumerate(curves):  # on their own curve, none between the two
        away = curve[:, 1] - curve[:, 0].square() / 2 - 2.0 * which
        assert away.abs().mean() < 0.2


def test_the_critic_measures_distance() -> None:
    """What is trained on points one apart: no slope above 1, so at most a distance of 1."""
    torch.manual_seed(0)
    critic = Critic(1, dim=2, hidden_dim=32)
    adam = torch.optim.Adam(critic.parameters(), 3e-3)
    points, which = torch.randn(128, 2), torch.zeros(128, dtype=torch.int64)
    for _ in range(200):
        adam.zero_grad()
        loss = critic.loss(points, points + torch.tensor([1.0, 0]), which, gradient_penalty=10.0)
        loss.backward()
        adam.step()
    assert -loss.item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("kind", [EncGAN, ConditionalAutoencoder])
def test_a_new_domain_is_read_from_the_others(kind: type) -> None:
    """Whoever takes item 0 of shop a takes item 3 of shop b; 1 goes with 4, and 2 with 5."""
    rows = [(u, i, t) for u in range(90) for t, i in enumerate((u % 3, 3 + u % 3) * 2)]
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": range(6), "shop": ["a"] * 3 + ["b"] * 3})
    split = last_basket(EventLog.from_frames(events, items))
    torch.manual_seed(0)
    model = kind(6, num_classes=CLASSES, column="shop", embedding_dim=8, latent_dim=4, dropout=0.0)
    part = model.prepare(split)
    adam = torch.optim.Adam(model.parameters(), 0.02)
    for step in range(100):
        adam.zero_grad()
        model.loss(part, Progress(step, 100)).backward()
        adam.step()
    newcomers = BasketBatch.from_lists([[[0]], [[1]], [[2]]], 6)
    in_b = torch.tensor([False] * 3 + [True] * 3)
    best = model.eval().top_k(newcomers, 1, candidates=in_b).items[:, 0]
    assert best.tolist() == [3, 4, 5]


def test_a_score_is_the_share_of_the_domain_times_that_of_the_item() -> None:
    model = EncGAN(5, num_classes=CLASSES, column="shop", embedding_dim=6, latent_dim=3).eval()
    model.domain_of_item.copy_(torch.tensor([0, 0, 1, 1, 1]))
    batch = BasketBatch.from_lists([[[0, 1], [2], [0]], [[3]]], 5)
    scores = model.score(batch).exp()
    torch.testing.assert_close(scores.sum(1), torch.ones(2))
    in_a = scores[:, :2].sum(1)  # of 4 events 3, and of 1 none; a tenth of an event to both alike
    torch.testing.assert_close(in_a, torch.tensor([3.05 / 4.1, 0.05 / 1.1]))
    assert model.score(BasketBatch.from_lists([[]], 5)).equal(torch.zeros(1, 5))


def test_others_are_the_mean_of_the_other_domains() -> None:
    model = EncGAN(4, num_classes=CLASSES, column="shop", embedding_dim=6, latent_dim=2).eval()
    model.domain_of_item.copy_(torch.tensor([0, 0, 1, 1]))
    rows = model.rows_of(BasketBatch.from_lists([[[0, 2]], [[3]]], 4))
    assert rows.users.tolist() == [0, 0, 1]
    latents = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    others = model._of_others(latents, rows, 2)
    torch.testing.assert_close(others, torch.tensor([[3.0, 4], [1, 2], [5, 6]]))


def test_terms_that_count_nothing_leave_the_likelihood() -> None:
    split = last_basket(checkerboard())
    options = {"num_classes": split.num_classes, "column": "colour", "dropout": 0.0}
    torch.manual_seed(0)
    none = Terms(reconstruction=0.0, adversarial=0.0, biases=0.0)
    model = EncGAN(split.num_items, **options, terms=none)
    part = model.prepare(split)
    rows = model.rows_of(part.history)
    assert model.regularise(rows.points, rows.domains) == 0
    model.terms = Terms(reconstruction=1.0, adversarial=0.0, biases=0.0)
    assert model.regularise(rows.points, rows.domains) > 0


def test_its_measure_is_of_the_items_of_the_domain() -> None:
    """Of one domain it is what the evaluator says of these items."""
    split = last_basket(checkerboard())
    torch.manual_seed(0)
    model = EncGAN(split.num_items, num_classes=split.num_classes, column="colour").eval()
    model.prepare(split)
    found = []
    for colour in (0, 1):  # a user has targets of one colour alone
        is_theirs = torch.arange(split.num_items) % 2 == colour
        of_colour = having_targets_in(split.test, is_theirs)
        result = evaluate(model, of_colour, candidates=is_theirs).per_user["ndcg@10"]
        found += result.to_list()
    assert len(found) == len(split.test)
    assert model.measure(split, 2)["within/ndcg@10"] == pytest.approx(sum(found) / len(found))


def test_errors() -> None:
    with pytest.raises(ConfigError, match="column=aisle: items have no such column"):
        EncGAN(4, num_classes=CLASSES, column="aisle")
    with pytest.raises(ConfigError, match="embedding_dim=8: expected at least 9"):
        EncGAN(4, num_classes=CLASSES, column="shop", embedding_dim=8, latent_dim=8)
    with pytest.raises(ConfigError, match=r"biases=-1\.0"):
        Terms(biases=-1.0)
    rows = {"user_id": [1, 2] * 4, "item_id": [1, 2, 2, 1] * 2, "timestamp": range(8)}
    items = pl.DataFrame({"item_id": [1, 2], "shop": ["a", None]})
    split = last_basket(EventLog.from_frames(pl.DataFrame(rows), items))
    model = EncGAN(2, num_classes=split.num_classes, column="shop")
    with pytest.raises(DataError, match="1 items have no shop"):
        model.prepare(split)
