"""The same client and server functions under Flower: what it gives, beside the loop in one process.

    python3 -m venv flower && flower/bin/pip install "flwr[simulation]" recsys
    flower/bin/python benchmarks/federated/flower.py

Flower's requirements do not fit ours, so it has an environment of its own. A client is
`train_clients` of one client, the server `Server`; orders and updates go as bytes. For a deployment
`client_app` and `server_app` are what `flwr run` asks for; a device then holds its own examples
alone, in place of `own_examples`, and a seed that nobody else knows.
"""

from __future__ import annotations

import polars as pl
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from recsys import EventLog
from recsys.models import NextPlace
from recsys.models.sequences import OwnPointer
from recsys.tasks import last_share
from recsys.training import Clients, LocalSteps, Order, Server, Update, Updates, train_clients

NUM_CLIENTS, NUM_ITEMS, NUM_ROUNDS = 4, 7, 3
LOCAL = LocalSteps(epochs=2, batch_size=4, learning_rate=0.3)


def new_model() -> NextPlace:
    torch.manual_seed(0)
    return NextPlace(NUM_ITEMS, embedding_dim=4, own=OwnPointer(max_events=8, day=4.0))


def examples() -> Clients:
    """Of users who walk on by one place, in place of what devices hold."""
    rows = [(u, (u + t) % NUM_ITEMS, t) for u in range(NUM_CLIENTS) for t in range(8 + 4 * u)]
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    return Clients.of(new_model(), last_share(EventLog.from_frames(events)))


def own_examples(number: int) -> Clients:
    return examples().rows(torch.tensor([number]))


def first_weights() -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in new_model().named_parameters()}


client_app = ClientApp()
server_app = ServerApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    order = Order.from_bytes(message.content["order"]["bytes"])
    own = own_examples(int(context.node_config["partition-id"]))
    (update,) = train_clients(new_model(), order, own, LOCAL).messages()
    return Message(_record("update", update.to_bytes()), reply_to=message)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    server = Server(first_weights())
    while len(nodes := list(grid.get_node_ids())) < NUM_CLIENTS:
        pass
    for _ in range(NUM_ROUNDS):
        order = _record("order", server.order().to_bytes())
        sent = [Message(order, dst_node_id=node, message_type="train") for node in nodes]
        replies = [reply.content["update"]["bytes"] for reply in grid.send_and_receive(sent)]
        updates = [Update.from_bytes(reply) for reply in replies]
        server.receive(Updates.of(updates, server.weights))
    compare(server)


def _record(name: str, message: bytes) -> RecordDict:
    return RecordDict({name: ConfigRecord({"bytes": message})})


def compare(server: Server) -> None:
    """Print how far the loop in one process is from it; the order of the sums is another.

    Raises:
        SystemExit: they differ.
    """
    loop = Server(first_weights())
    for _ in range(NUM_ROUNDS):
        loop.receive(train_clients(new_model(), loop.order(), examples(), LOCAL))
    moved, apart = (
        max(float((a[name] - weight).abs().max()) for name, weight in loop.weights.items())
        for a in (first_weights(), server.weights)
    )
    print(f"{NUM_ROUNDS} rounds of {NUM_CLIENTS} clients: weights moved by up to {moved:.3g};")
    print(f"under Flower they are {apart:.2g} apart from those of the loop")
    if apart > 1e-6:
        raise SystemExit(1)


if __name__ == "__main__":
    run_simulation(server_app, client_app, num_supernodes=NUM_CLIENTS)
