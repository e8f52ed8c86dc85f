"""Clients side by side, alone, in another process and by plain PyTorch have the same numbers."""

import copy
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from recsys import EventLog, Split
from recsys.errors import ConfigError, DataError, RunError
from recsys.models import NextPlace, SASRec
from recsys.models.sequences import Adjacency, OwnPointer
from recsys.tasks import last_share
from recsys.training import local_steps
from recsys.training.aggregation import (
    Aggregation,
    DistanceWeighted,
    FedAdam,
    FedAvg,
    FedProx,
    GeometricMedian,
)
from recsys.training.clients import Clients
from recsys.training.federated import Coin, OnClient, Rounds, Server, train_federated
from recsys.training.local_steps import LocalSteps, train_clients
from recsys.training.messages import Order, Update, Updates
from recsys.training.privacy import GaussianNoise

NUM_ITEMS = 7
LOCAL = LocalSteps(epochs=2, batch_size=4, max_examples=10, learning_rate=0.3)
SLOWLY = LocalSteps(epochs=2, batch_size=4, max_examples=10, learning_rate=0.1)


def small_split() -> Split:
    """Five users of 6 to 22 events who walk on by one place, user 4 by two; two shops."""
    rows = [
        (user, (user + step * (2 if user == 4 else 1)) % NUM_ITEMS, step)
        for user in range(5)
        for step in range(6 + 4 * user)
    ]
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": range(NUM_ITEMS)}).with_columns(
        latitude=40 + pl.col("item_id") / 100, longitude=-74.0
    )
    users = pl.DataFrame({"user_id": range(5), "shop": ["a", "b", "a", "b", "b"]})
    return last_share(EventLog.from_frames(events, items, users))


def small_model(**options: Any) -> NextPlace:
    torch.manual_seed(0)
    return NextPlace(NUM_ITEMS, embedding_dim=4, max_length=3, **options)


def weights_of(model: NextPlace) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def scores_of_one(model: NextPlace, inputs: dict[str, Tensor]) -> Tensor:
    weights = {name: weight[None] for name, weight in model.named_parameters()}
    return model.scores_of(weights, {name: value[None] for name, value in inputs.items()})[0]


@pytest.fixture(scope="module")
def split() -> Split:
    return small_split()


def clients_and_order(split: Split, **options: Any) -> tuple[NextPlace, Clients, Order]:
    model = small_model(**options)
    return model, Clients.of(model, split), Order(weights_of(model))


def test_a_client_holds_the_examples_of_its_users(split: Split) -> None:
    model = small_model()
    users = Clients.of(model, split)
    # 70% of 6, 10, 14, 18 and 22 events, but for the first.
    assert users.num_examples.tolist() == [3, 6, 8, 11, 14]
    assert users.ids.to_list() == [0, 1, 2, 3, 4]
    shops = Clients.of(model, split, column="shop")
    assert shops.ids.to_list() == ["a", "b"]
    assert shops.num_examples.tolist() == [11, 31]
    assert shops.users.tolist() == [0, 1, 0, 1, 1]
    assert torch.equal(
        shops.rows(torch.tensor([1])).examples["target"][:6], users.examples["target"][3:9]
    )


def test_a_column_that_users_have_not(split: Split) -> None:
    with pytest.raises(DataError, match=r"users have no column 'city'; .* user_id, shop"):
        Clients.of(small_model(), split, column="city")


def test_a_model_that_has_no_examples(split: Split) -> None:
    with pytest.raises(ConfigError, match="SASRec cannot be trained on clients"):
        Clients.of(SASRec(NUM_ITEMS), split)


def test_entropies_are_those_of_each_clients_targets(split: Split) -> None:
    _, clients, _ = clients_and_order(split)
    targets = clients.rows(torch.tensor([4])).examples["target"]
    share = targets.bincount().double() / len(targets)
    expected = -(share[share > 0] * share[share > 0].log()).sum()
    assert clients.entropies()[4] == pytest.approx(expected.item())
    assert clients.entropies()[0] == pytest.approx(torch.tensor(3.0).log().item())


@pytest.mark.parametrize(
    "options",
    [{}, {"adjacency": Adjacency(share=0.5, km=2.0)}, {"own": OwnPointer(max_events=6, day=4.0)}],
    ids=["plain", "adjacency", "own"],
)
@pytest.mark.parametrize("clients_at_once", [2, 64])
def test_clients_side_by_side_have_the_numbers_of_each_alone(
    split: Split, options: dict[str, Any], clients_at_once: int
) -> None:
    model, clients, order = clients_and_order(split, **options)
    together = train_clients(model, order, clients, LOCAL, clients_at_once=clients_at_once)
    assert together.num_examples.tolist() == [3, 6, 8, 10, 10]
    for row in range(len(clients)):
        alone = train_clients(model, order, clients.rows(torch.tensor([row])), LOCAL)
        for name, change in alone.changes.items():
            torch.testing.assert_close(together.changes[name][row], change[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("proximal", "options"),
    [
        (0.0, {}),
        (0.5, {}),
        (0.0, {"own": OwnPointer(max_events=6, day=4.0)}),
        (0.0, {"adjacency": Adjacency(share=0.5, km=2.0)}),
    ],
    ids=["plain", "proximal", "own", "adjacency"],
)
def test_one_pass_over_all_examples_is_a_step_of_pytorchs_sgd(
    split: Split, proximal: float, options: dict[str, Any]
) -> None:
    model, clients, order = clients_and_order(split, **options)
    order = Order(order.weights, proximal=proximal)
    local = LocalSteps(epochs=3, batch_size=32, max_examples=None, learning_rate=0.2)
    updates = train_clients(model, order, clients, local)
    for row in range(len(clients)):
        plain = copy.deepcopy(model)
        sgd = torch.optim.SGD(plain.parameters(), lr=0.2)
        examples = dict(clients.rows(torch.tensor([row])).examples)
        target = examples.pop("target")
        for _ in range(3):
            loss = torch.nn.functional.cross_entropy(scores_of_one(plain, examples), target)
            drift = sum((w - order.weights[n]).square().sum() for n, w in plain.named_parameters())
            sgd.zero_grad()
            (loss + proximal / 2 * drift).backward()
            sgd.step()
        for name, weight in plain.named_parameters():
            change = weight.detach() - order.weights[name]
            torch.testing.assert_close(updates.changes[name][row], change, rtol=1e-4, atol=1e-6)


def test_an_epoch_takes_each_example_once(split: Split) -> None:
    _, clients, _ = clients_and_order(split)
    one = clients.rows(torch.tensor([4]))

    def rows(count: int, number: int, epoch: int) -> list[int]:
        counts = torch.tensor([count])
        chosen = local_steps._chosen(one, counts, number, 0)
        return local_steps._shuffled(one, counts, chosen, number, epoch, 0)[0].tolist()

    first, second = rows(14, 0, 0), rows(14, 0, 1)
    assert sorted(first) == sorted(second) == list(range(14))
    assert first != second
    some, again, other = rows(5, 0, 0), rows(5, 0, 1), rows(5, 1, 0)
    assert set(some) == set(again) != set(other)


def test_a_message_holds_nothing_else(split: Split) -> None:
    model, clients, order = clients_and_order(split, own=OwnPointer(max_events=6, day=4.0))
    (message,) = train_clients(model, order, clients.rows(torch.tensor([2])), LOCAL).messages()
    assert [field.name for field in fields(Update)] == ["takes_part", "num_examples", "change"]
    assert message.change.keys() == order.weights.keys()
    assert all(c.shape == order.weights[n].shape for n, c in message.change.items())
    assert list(vars(message)) == ["takes_part", "num_examples", "change"]
    size = sum(4 * weight.numel() for weight in order.weights.values())
    sent = message.to_bytes()
    # A header that names the tensors, and the tensors: a row of examples would not fit.
    header = int.from_bytes(sent[:8], "little")
    assert len(sent) == 8 + header + size
    assert header < 100 * (len(order.weights) + 1)
    read = Update.from_bytes(sent)
    assert (read.takes_part, read.num_examples) == (True, 8)
    for name, change in read.change.items():
        assert torch.equal(change, message.change[name])


def test_who_takes_no_part_sends_a_coin_alone(split: Split) -> None:
    model, clients, order = clients_and_order(split)
    order = Order(order.weights, coin=(50.0, 0.1))  # nobody is as diverse as that
    messages = train_clients(model, order, clients, LOCAL).messages()
    assert all(not m.takes_part and m.num_examples == 0 and not m.change for m in messages)
    # The same bytes, whoever sends them.
    assert len({message.to_bytes() for message in messages}) == 1


def test_diverse_clients_take_part_more_often(split: Split) -> None:
    model, clients, order = clients_and_order(split)
    clients = clients.rows(torch.tensor([0, 4]))
    low, high = clients.entropies().tolist()
    rounds = [
        train_clients(model, Order(order.weights, n, coin=(1.5, 0.5)), clients, LOCAL).takes_part
        for n in range(200)
    ]
    share = torch.stack(rounds).double().mean(0)
    expected = torch.sigmoid((torch.tensor([low, high]) - 1.5) / 0.5)
    torch.testing.assert_close(share, expected.double(), rtol=0, atol=0.1)


def test_the_midpoint_finds_the_median_by_coins_alone() -> None:
    coin, entropies = Coin(midpoint=0.0, width=0.2, rate=0.3), torch.linspace(1, 3, 99)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        heads = torch.rand(99, generator=generator) < torch.sigmoid(
            (entropies - coin.midpoint) / coin.width
        )
        coin.learn(heads)
    assert coin.midpoint == pytest.approx(2, abs=0.15)


def test_a_clipped_change_says_neither_its_size_nor_how_many_examples(split: Split) -> None:
    model, clients, order = clients_and_order(split)
    free = train_clients(model, order, clients, LOCAL)
    norms = torch.cat([c.flatten(1) for c in free.changes.values()], 1).norm(dim=1)
    clip = norms.median().item()
    updates = train_clients(model, Order(order.weights, clip=clip), clients, LOCAL)
    clipped = torch.cat([c.flatten(1) for c in updates.changes.values()], 1).norm(dim=1)
    torch.testing.assert_close(clipped, norms.clamp(max=clip))
    assert updates.num_examples.tolist() == [1] * 5


CHANGES = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 9.0]])
COUNTS = torch.tensor([1, 1, 2])


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (FedAvg(), [2, 4.5]),
        (FedAvg(learning_rate=0.5), [1, 2.25]),
        (FedProx(proximal=1.0), [2, 4.5]),
        (DistanceWeighted(temperature=1e9), [2, 4.5]),
    ],
)
def test_steps_worked_by_hand(aggregation: Aggregation, expected: list[float]) -> None:
    step = aggregation.step(aggregation.weights(CHANGES, COUNTS) @ CHANGES)
    torch.testing.assert_close(step, torch.tensor(expected))


def test_adam_of_the_server_by_hand() -> None:
    adam = FedAdam(learning_rate=0.1, beta1=0.9, beta2=0.99, tau=1e-3)
    first = adam.step(torch.tensor([2.0]))
    assert first.item() == pytest.approx(0.1 * 0.2 / ((0.99e-6 + 0.04) ** 0.5 + 1e-3))
    second = adam.step(torch.tensor([0.0]))
    moment = (0.99 * (0.99e-6 + 0.04)) ** 0.5 + 1e-3
    assert second.item() == pytest.approx(0.1 * 0.18 / moment)


def test_what_is_far_off_counts_less() -> None:
    far = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [100.0, 100.0]])
    counts = torch.ones(4, dtype=torch.int64)
    mean = (FedAvg().weights(far, counts) @ far).norm()
    assert (DistanceWeighted().weights(far, counts) @ far).norm() < 0.5 * mean
    median = GeometricMedian(iterations=50)
    point = median.weights(far, counts) @ far
    assert point.norm() < 2
    # At the median the unit vectors to the points cancel.
    to_points = far - point
    distances = to_points.norm(dim=1, keepdim=True)
    slope = (to_points / distances)[distances[:, 0] > 1e-3].sum(0).norm()
    assert slope < 1.01


def test_a_round_is_the_mean_of_what_clients_send(split: Split) -> None:
    model, clients, order = clients_and_order(split)
    updates = train_clients(model, order, clients, LOCAL)
    server = Server(order.weights)
    server.receive(Updates.of(updates.messages(), server.weights))
    share = updates.num_examples / updates.num_examples.sum()
    for name, change in updates.changes.items():
        mean = torch.tensordot(share, change, 1)
        torch.testing.assert_close(server.weights[name], order.weights[name] + mean)


def test_updates_of_other_weights_are_refused(split: Split) -> None:
    _, _, order = clients_and_order(split)
    changes = {name: torch.zeros_like(weight) for name, weight in order.weights.items()}
    for name, value in [("bias", torch.zeros(1)), ("bias", torch.zeros(7).double())]:
        with pytest.raises(RunError, match="an update's bias is not of the server's weights"):
            Updates.of([Update(True, 1, changes | {name: value})], order.weights)
    with pytest.raises(RunError, match="an update's more is not of the server's weights"):
        Updates.of([Update(True, 1, changes | {"more": torch.zeros(1)})], order.weights)
    with pytest.raises(RunError, match="an update's bias is not finite"):
        Updates.of(
            [Update(True, 1, changes | {"bias": torch.full((7,), torch.nan)})], order.weights
        )


@pytest.mark.parametrize("message", [b"", b"x" * 40, Update(True, 1, {}).to_bytes()[:-3]])
def test_what_is_no_update_is_one_line(message: bytes) -> None:
    with pytest.raises(RunError, match=r"a message of \d+ bytes is no update"):
        Update.from_bytes(message)


@pytest.mark.parametrize(
    "about", ['{"takes_part": 1, "num_examples": 1}', '{"takes_part": true}', '{"user": 7}']
)
def test_an_update_says_nothing_else(about: str) -> None:
    with pytest.raises(RunError, match="expected takes_part and num_examples alone"):
        Update.from_bytes(save({}, {"update": about}))


def test_an_order_says_all_that_it_holds(split: Split) -> None:
    _, _, order = clients_and_order(split)
    order = Order(order.weights, 3, 0.5, 1.0, (2.0, 0.5))
    read = Order.from_bytes(order.to_bytes())
    assert {**vars(read), "weights": 0} == {**vars(order), "weights": 0}
    assert torch.equal(read.weights["bias"], order.weights["bias"])
    for message, says in [
        (Update(True, 1, {}).to_bytes(), "is no order"),
        (save({}, {"order": '{"coin": null, "more": 1}'}), "an order says .*more"),
        (save({}, {"order": '{"round": 1}'}), "an order says"),
    ]:
        with pytest.raises(RunError, match=says):
            Order.from_bytes(message)


def test_noise_goes_with_what_can_be_counted(split: Split) -> None:
    with pytest.raises(ConfigError, match="not with GeometricMedian"):
        Server({}, GeometricMedian(), noise=GaussianNoise())
    with pytest.raises(ConfigError, match="noise beside a coin"):
        Server({}, coin=Coin(), noise=GaussianNoise())


def test_noise_is_added_to_the_sum_over_the_expected_clients(split: Split) -> None:
    model, clients, order = clients_and_order(split)
    noise = GaussianNoise(clip=0.5, multiplier=2.0)
    server = Server(order.weights, noise=noise, expected_clients=4.0)
    updates = train_clients(model, server.order(), clients, LOCAL)
    server.receive(updates)
    flat = torch.cat([c.flatten(1) for c in updates.changes.values()], 1).sum(0)
    steps = torch.cat([(server.weights[n] - w).flatten() for n, w in order.weights.items()])
    assert ((4 * steps - flat).std() / 1.0).item() == pytest.approx(1, abs=0.25)
    # A round in which nobody is asked still adds noise: that nobody was is not told.
    before = {name: weight.clone() for name, weight in server.weights.items()}
    server.receive(
        train_clients(
            model, server.order(), clients.rows(torch.tensor([], dtype=torch.int64)), LOCAL
        )
    )
    assert not torch.equal(server.weights["bias"], before["bias"])


def test_with_noise_each_client_is_asked_by_itself() -> None:
    rounds = Rounds(clients_a_round=10)
    fixed = [len(rounds.sample(100, n, independent=False)) for n in range(200)]
    sizes = torch.tensor([len(rounds.sample(100, n, independent=True)) for n in range(200)])
    assert set(fixed) == {10}
    assert sizes.double().mean().item() == pytest.approx(10, abs=1)
    assert sizes.double().var().item() == pytest.approx(9, rel=0.4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"aggregation": FedAdam(learning_rate=0.05)}, marks=pytest.mark.slow),
        pytest.param({"aggregation": FedProx(proximal=0.1)}, marks=pytest.mark.slow),
        pytest.param({"aggregation": DistanceWeighted()}, marks=pytest.mark.slow),
        pytest.param({"aggregation": GeometricMedian()}, marks=pytest.mark.slow),
        pytest.param({"coin": Coin(midpoint=1.0)}, marks=pytest.mark.slow),
        pytest.param({"column": "shop"}, marks=pytest.mark.slow),
    ],
    ids=["avg", "adam", "prox", "distance", "median", "coin", "shops"],
)
def test_clients_together_learn_the_walk(split: Split, options: dict[str, Any]) -> None:
    model = small_model()
    train_federated(
        model, split, rounds=Rounds(num_rounds=150, clients_a_round=4), local=SLOWLY, **options
    )
    test = split.test.rows(torch.arange(10))  # of the users who walk on by one
    best = model.top_k(test.history, 2).items
    assert (best == test.target.values[:, None]).any(1).double().mean() > 0.8


def test_the_same_seed_gives_the_same_weights(split: Split) -> None:
    models = [small_model() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        train_federated(model, split, rounds=Rounds(num_rounds=3, seed=seed, clients_a_round=2))
    assert torch.equal(models[0].items, models[1].items)
    assert not torch.equal(models[0].items, models[2].items)


def test_the_mean_of_the_last_rounds(split: Split) -> None:
    model, seen = small_model(), []
    rounds = Rounds(num_rounds=4, clients_a_round=2, averaged=3)
    train_federated(
        model, split, rounds=rounds, after_round=lambda _: seen.append(model.items.detach().clone())
    )
    torch.testing.assert_close(model.items.detach(), torch.stack(seen[1:]).mean(0))


def test_what_a_client_learns_by_itself_is_its_own(split: Split) -> None:
    model = small_model()
    model.keep_popularity(split)
    clients = Clients.of(model, split)
    local = LocalSteps(epochs=60, batch_size=16, learning_rate=0.3)
    alone = OnClient(model, clients, local)
    test = split.test.rows(torch.arange(len(split.test)))
    best = alone.top_k(test.history, 1).items
    of_four = test.history.users == 4
    assert (best[of_four] == test.target.values[of_four, None]).double().mean() > 0.8
    row = train_clients(model, Order(weights_of(model)), clients.rows(torch.tensor([4])), local)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in changed.named_parameters():
            weight += row.changes[name][0]
    history = test.history.rows(of_four.nonzero()[:, 0])
    torch.testing.assert_close(alone.score(history), changed.score(history), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalSteps(epochs=0), "epochs=0: expected at least 1"),
        (lambda: LocalSteps(learning_rate=0.0), r"learning_rate=0\.0: expected above 0"),
        (lambda: Rounds(clients_a_round=0), "clients_a_round=0: expected at least 1"),
        (lambda: Rounds(num_rounds=2, averaged=3), "averaged=3: expected at most num_rounds=2"),
        (lambda: FedProx(proximal=-1.0), r"proximal=-1\.0: expected at least 0"),
        (lambda: FedAdam(beta1=2.0), r"beta1=2\.0: expected a share"),
        (lambda: DistanceWeighted(temperature=0.0), r"temperature=0\.0: expected above 0"),
        (lambda: GeometricMedian(iterations=0), "iterations=0: expected at least 1"),
        (lambda: Coin(width=0.0), r"width=0\.0: expected above 0"),
    ],
)
def test_options_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_training_that_diverges_is_one_line(split: Split) -> None:
    local = LocalSteps(learning_rate=1e30)
    with pytest.raises(DataError, match="the mean change is not finite; lower the clients' learn"):
        train_federated(small_model(), split, rounds=Rounds(num_rounds=3), local=local)


CLIENT = """
import socket, sys
import polars as pl, torch
from safetensors.torch import load_file
from recsys.models import NextPlace
from recsys.training import Clients, LocalSteps, Order, train_clients

port, number, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
examples = load_file(path)
offsets, numbers = torch.tensor([0, len(examples["target"])]), torch.tensor([number])
own = Clients(examples, offsets, numbers, pl.Series([number]), torch.tensor([0]))
model = NextPlace(7, embedding_dim=4, max_length=3)
local = LocalSteps(epochs=2, batch_size=4, max_examples=10, learning_rate=0.3)
with socket.create_connection(("127.0.0.1", port), timeout=300).makefile("rwb") as server:
    server.write(bytes([number]))
    server.flush()
    while size := int.from_bytes(server.read(4), "little"):
        order = Order.from_bytes(server.read(size))
        message = train_clients(model, order, own, local).messages()[0].to_bytes()
        server.write(len(message).to_bytes(4, "little") + message)
        server.flush()
"""
"""A client: reads its own events alone, hears weights and says updates, both as safetensors."""


def test_two_processes_over_localhost_give_the_numbers_of_the_loop(
    split: Split, tmp_path: Path
) -> None:
    model, clients, order = clients_and_order(split)
    loop, server = Server(dict(order.weights)), Server(dict(order.weights))
    for _ in range(3):
        some = clients.rows(torch.tensor([1, 4]))
        loop.receive(train_clients(model, loop.order(), some, LOCAL))
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(300)
        for user in (1, 4):
            path = tmp_path / f"{user}.safetensors"
            save_file(dict(clients.rows(torch.tensor([user])).examples), path)
            command = [sys.executable, "-c", CLIENT, str(listener.getsockname()[1]), str(user)]
            process = stack.enter_context(subprocess.Popen([*command, str(path)]))
            stack.callback(process.kill)
        lines = {}
        for _ in range(2):
            connection = stack.enter_context(listener.accept()[0])
            connection.settimeout(300)
            line = stack.enter_context(connection.makefile("rwb"))
            lines[line.read(1)[0]] = line
        for _ in range(3):
            sent = server.order().to_bytes()
            for line in lines.values():
                line.write(len(sent).to_bytes(4, "little") + sent)
                line.flush()
            sizes = {user: int.from_bytes(lines[user].read(4), "little") for user in (1, 4)}
            messages = [Update.from_bytes(lines[user].read(sizes[user])) for user in (1, 4)]
            server.receive(Updates.of(messages, server.weights))
        for line in lines.values():
            line.write(bytes(4))
            line.flush()
    for name, weight in loop.weights.items():
        torch.testing.assert_close(server.weights[name], weight, rtol=1e-6, atol=1e-7)
        assert not torch.equal(weight, order.weights[name])
