"""The service as a client meets it: lists, mistakes in one line, many requests at once."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recsys.cli.main import main
from recsys.models import EASE, SASRec
from recsys.scoring.trained_model import SavedModel
from recsys.tasks import last_basket
from recsys.testing import checkerboard

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

from recsys import serving  # noqa: E402

Answer = tuple[int, Any]


def saved_model(model: Any = None) -> SavedModel:
    split = last_basket(checkerboard(num_items=20))
    fitted = EASE().fit(split) if model is None else model(split.num_items)
    return SavedModel(fitted, split.item_table, split.users, split.latest, False)


class Client:
    """Asks a service that listens on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        text = body if isinstance(body, str | None) else json.dumps(body)
        connection.request(method, path, text)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        return answer.status, found

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any) -> Answer:
        return self.ask("POST", path, body)


def serving_at(saved: SavedModel) -> Iterator[Client]:
    config = uvicorn.Config(serving.app(saved), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield Client(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def saved() -> SavedModel:
    return saved_model()


@pytest.fixture(scope="module")
def client(saved: SavedModel) -> Iterator[Client]:
    yield from serving_at(saved)


def items_of(answer: Answer) -> list[list[Any]]:
    assert answer[0] == 200, answer
    return [[entry["item_id"] for entry in found] for found in answer[1]["lists"]]


def test_lists_are_those_of_the_model(client: Client, saved: SavedModel) -> None:
    expected = saved.recommend([3, 5], k=4)
    lists = [expected.filter(user_id=user)["item_id"].to_list() for user in (5, 3, 5)]
    assert items_of(client.post("/recommend", {"users": [5, 3, 5], "k": 4})) == lists
    assert items_of(client.get("/recommend?user=5&user=3&user=5&k=4")) == lists
    found = client.get("/recommend?user=5&k=4")[1]
    assert [entry["score"] for entry in found["lists"][0]] == pytest.approx(
        expected.filter(user_id=5)["score"].to_list()
    )
    assert len(items_of(client.get("/recommend?user=5"))[0]) == 10


def test_histories_filters_and_similar_items(client: Client, saved: SavedModel) -> None:
    expected = saved.recommend(histories=[[1, [2, 3]]], k=3, deny=[4])["item_id"].to_list()
    body = {"histories": [[1, [2, 3], "unknown"]], "k": 3, "deny": [4]}
    assert items_of(client.post("/recommend", body)) == [expected]
    allowed = client.post("/recommend", {"users": [3], "k": 9, "allow": [7, 8]})
    assert sorted(items_of(allowed)[0]) == [7, 8]
    popular = saved.recommend(histories=[[]], k=4)["item_id"].to_list()
    expected = saved.recommend(histories=[[1]], k=4)["item_id"].to_list()
    for body in ([[], [1]], [[[]], [[], 1]]):
        assert items_of(client.post("/recommend", {"histories": body, "k": 4})) == [
            popular,
            expected,
        ]
    similar = saved.similar([6], k=3)
    found = client.get("/similar?item=6&k=3")[1]["lists"][0]
    assert [entry["similar_id"] for entry in found] == similar["similar_id"].to_list()


def test_requests_at_once_are_answered_each_with_its_own(client: Client, saved: SavedModel) -> None:
    """Of several lengths and filters, and one that is wrong among them."""
    bodies = [{"users": [u], "k": 1 + u % 5, "deny": [u % 3]} for u in range(40)]
    bodies[7] = {"users": [10**6]}
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda body: client.post("/recommend", body), bodies))
    assert answers[7] == (404, {"error": "users: 1000000 is not known"})
    for user, answer in enumerate(answers):
        if user != 7:
            table = saved.recommend([user], k=1 + user % 5, deny=[user % 3])
            assert items_of(answer) == [table["item_id"].to_list()]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/recommend", '{"users": [1', 400, "the body is no JSON"),
        ("/recommend", "[" * 100_000, 400, "the body is no JSON"),
        ("/recommend", "[]", 400, "the body is no object"),
        ("/recommend", {"users": [1.5]}, 400, "users: 1.5 is no id; give text or integers"),
        ("/recommend", {"users": [10**40]}, 400, "is larger than any integer id"),
        ("/recommend", '{"users": ["\\ud800"]}', 400, r'users: "\ud800" is no text of Unicode'),
        ("/recommend", {"users": []}, 400, "users: expected a list of 1 to 1000"),
        ("/recommend", {"users": [3], "histories": [[1]]}, 400, "give one of users, histories"),
        ("/recommend", {"histories": [["x"]]}, 404, 'of the history ["x"] no item is known'),
        ("/recommend", {"histories": [3]}, 400, "a history: expected a list"),
        ("/recommend", {"users": [3], "k": True}, 400, "k=true: expected an integer"),
        ("/recommend", {"users": [3], "k": 21}, 400, "k=21 exceeds the 20 items"),
        ("/recommend", {"users": [3], "k": 0}, 400, "k=0 is not a length"),
        ("/recommend", {"users": [3], "deny": ["x"]}, 404, "deny: 'x' is not known"),
        ("/recommend", {"users": [3], "limit": 4}, 400, "there is no limit; there is users"),
        ("/recommend", " " * (serving.LARGEST_BODY + 1), 413, "a body of more than"),
        ("/similar", {"items": [99]}, 404, "items: 99 is not known"),
        ("/nothing", {}, 404, "Not Found"),
        ("/health", {}, 405, "Method Not Allowed"),
    ],
)
def test_what_is_wrong_is_one_line(
    client: Client, path: str, body: Any, status: int, words: str
) -> None:
    answer = client.post(path, body)
    assert answer[0] == status
    assert words in answer[1]["error"]
    assert client.get("/recommend?user=3")[0] == 200


def test_a_query_takes_ids_and_k_alone(client: Client) -> None:
    assert client.get("/recommend?usr=3")[1] == {
        "error": "there is no usr; give user and k, or POST a body"
    }
    assert client.get("/recommend?user=3&k=many")[0] == 400
    assert client.get("/recommend?user=none")[0] == 404
    status, found = client.get("/health")
    assert (status, found["model"], found["items"]) == (200, "EASE", 20)


def test_vectors_of_items_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = saved_model(lambda n: SASRec(n, embedding_dim=4))
    times: list[int] = []
    encode = SASRec.encode_items
    monkeypatch.setattr(SASRec, "encode_items", lambda self: times.append(1) or encode(self))
    expected = saved.recommend([3, 5], k=4)["item_id"].to_list()
    times.clear()
    for client in serving_at(saved):
        answers = [client.get(f"/recommend?user={user}&k=4") for user in (3, 5)]
        assert client.get("/similar?item=3&k=4")[0] == 200
    assert [item for answer in answers for item in items_of(answer)[0]] == expected
    assert len(times) == 1


def test_no_more_wait_than_are_to(saved: SavedModel) -> None:
    async def full() -> None:
        service = serving.Service(saved)
        for _ in range(serving.LONGEST_QUEUE):
            service.waiting.put_nowait(service.question("users", [3], {}))
        with pytest.raises(asyncio.QueueFull):
            await service.ask(service.question("users", [3], {}))

    asyncio.run(full())


def test_a_port_that_is_none_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nowhere", "--port", "99999"]) == 2
    assert capsys.readouterr().err == "recsys: --port 99999: expected at most 65535\n"
