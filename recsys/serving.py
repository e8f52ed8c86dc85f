"""A trained model behind HTTP: lists for users and histories, and similar items, as JSON.

    GET  /recommend?user=ID&user=ID&k=10
    POST /recommend   {"users": [ID, …]} or {"histories": [[ID, …], …]}
    GET  /similar?item=ID&k=10
    POST /similar     {"items": [ID, …]}
    GET  /health

A body may also have `k`, and `allow` and `deny`: lists of items. The answer to a question is
`{"lists": [[{"item_id": …, "title": …, "score": …}, …], …]}`, a list for each id or history in
their order.

Requests that come while the model is at work are asked together in its next batch, of
`LARGEST_BATCH` users or one request more; where `LONGEST_QUEUE` wait, the next is refused with 503.
What is wrong with a request is one line, `{"error": …}`, with a status from 400 on.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from recsys.errors import BadRequestError, RecsysError, UnknownIdError
from recsys.log.vocabulary import UNKNOWN, Vocabulary
from recsys.retrieval.lists import check_length
from recsys.scoring.ids import column_of
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.trained_model import SavedModel, asking

logger = logging.getLogger(__name__)

LARGEST_BATCH = 64
"""Users that are asked about at once."""
LONGEST_QUEUE = 256
"""Requests that may wait."""
LARGEST_BODY = 2**20
"""Bytes of a request."""
MOST = 1_000
"""Ids of a list in a request, items in a list of an answer."""

USERS, HISTORIES, ITEMS = "users", "histories", "items"
FILTERS = ("allow", "deny")


@dataclass(frozen=True, eq=False)
class Question:
    """What a request asks, of ids that the model knows.

    Attributes:
        kind: `users`, `histories` or `items`.
        asked: ids of users or items, or histories: lists of baskets of item ids.
        k: items in a list.
        filters: items that are allowed and denied, by the names `allow` and `deny`.
        answer: is set to the lists, one for each of what is asked.
    """

    kind: str
    asked: Sequence[Any]
    k: int
    filters: Mapping[str, Sequence[Any]]
    answer: asyncio.Future[list[Any]] = field(default_factory=asyncio.Future)

    def is_like(self, other: Question) -> bool:
        """Whether both can be asked in one batch."""
        return (self.kind, self.filters) == (other.kind, other.filters)


class Service:
    """Asks a saved model, several questions at a time; vectors of all items are made once."""

    def __init__(self, saved: SavedModel) -> None:
        self.saved = saved
        self.waiting: asyncio.Queue[Question] = asyncio.Queue(LONGEST_QUEUE)
        model = saved.model.eval()
        if isinstance(model, VectorScorer):
            with asking(model), torch.inference_mode():
                vectors = model.encode_items()
            model.encode_items = lambda: vectors  # type: ignore[method-assign]

    async def ask(self, question: Question) -> list[Any]:
        """The lists of a question.

        Raises:
            asyncio.QueueFull: too many wait.
            RecsysError: the model refuses the question.
        """
        self.waiting.put_nowait(question)
        return await question.answer

    async def work(self) -> None:
        """Answer questions for ever, those that wait together."""
        while True:
            batch = [await self.waiting.get()]
            while not self.waiting.empty() and sum(len(q.asked) for q in batch) < LARGEST_BATCH:
                batch.append(self.waiting.get_nowait())
            while batch:
                alike = [question for question in batch if question.is_like(batch[0])]
                batch = [question for question in batch if not question.is_like(batch[0])]
                await self._answer(alike)

    async def _answer(self, questions: Sequence[Question]) -> None:
        """Answer questions that are alike; one that the model refuses fails alone."""
        try:
            lists = await asyncio.to_thread(self.lists, questions)
        except Exception as error:
            if len(questions) > 1:
                for question in questions:
                    await self._answer([question])
            elif not questions[0].answer.done():
                questions[0].answer.set_exception(error)
            return
        for question, answer in zip(questions, lists, strict=True):
            if not question.answer.done():  # nobody waits for it any more
                question.answer.set_result(answer)

    def lists(self, questions: Sequence[Question]) -> list[list[Any]]:
        """Of questions that are alike, for each what it asks, the items of a list as dicts."""
        kind, asked = questions[0].kind, [key for q in questions for key in q.asked]
        options: dict[str, Any] = {"k": max(q.k for q in questions), **questions[0].filters}
        if kind == HISTORIES:
            keys = list(range(len(asked)))
            table = self.saved.recommend(histories=asked, **options)
        else:
            keys = asked
            ask = self.saved.recommend if kind == USERS else self.saved.similar
            table = ask(list(dict.fromkeys(asked)), **options)
        names = table.columns[2:]
        lists: dict[Any, list[dict[str, Any]]] = {key: [] for key in keys}
        for key, _, *values in table.iter_rows():
            lists[key].append(dict(zip(names, values, strict=True)))
        following = iter(keys)
        return [[lists[next(following)][: q.k] for _ in q.asked] for q in questions]

    def question(self, kind: str, asked: Any, options: Mapping[str, Any]) -> Question:
        """What a request asks, after its ids have been looked up.

        Raises:
            BadRequestError: ids or options are not what is expected.
            UnknownIdError: the model does not know an id, or of a history none.
            CatalogueError: lists longer than the catalogue.
        """
        k = options.get("k", 10)
        if type(k) is not int or k > MOST:
            raise BadRequestError(f"k={json.dumps(k)}: expected an integer of at most {MOST}")
        check_length(k, len(self.saved.item_table))
        items = self.saved.items
        filters = {name: _known(items, options[name], name) for name in FILTERS if name in options}
        if kind == HISTORIES:
            known: list[Any] = [self._history(history) for history in _many(asked, kind)]
        else:
            known = _known(self.saved.users if kind == USERS else items, asked, kind)
        return Question(kind, known, k, filters)

    def _history(self, history: Any) -> list[list[Any]]:
        """Baskets of the items that the model knows; others are left out.

        A history may be empty, and is ranked by popularity; one of unknown items alone is refused.
        """
        if history == []:
            return []
        baskets = [b if isinstance(b, list) else [b] for b in _many(history, "a history")]
        known = [
            _known(self.saved.items, basket, "a basket", all_of_them=False)
            for basket in baskets
            if basket
        ]
        if known and not any(known):
            raise UnknownIdError(f"of the history {json.dumps(history)[:80]} no item is known")
        return [basket for basket in known if basket]


def _many(values: Any, what: str) -> list[Any]:
    if not isinstance(values, list) or not 0 < len(values) <= MOST:
        raise BadRequestError(f"{what}: expected a list of 1 to {MOST}")
    return values


def _known(vocabulary: Vocabulary, ids: Any, what: str, *, all_of_them: bool = True) -> list[Any]:
    """Ids as the vocabulary holds them; all have to be known, or others are left out."""
    for one in _many(ids, what):
        if type(one) not in (int, str):
            raise BadRequestError(f"{what}: {json.dumps(one)[:80]} is no id; give text or integers")
        if isinstance(one, str) and not one.isascii() and not _is_text(one):
            raise BadRequestError(f"{what}: {json.dumps(one)[:80]} is no text of Unicode")
        if isinstance(one, int) and abs(one) >= 2**63:
            raise BadRequestError(f"{what}: {str(one)[:80]} is larger than any integer id")
    index = vocabulary.index_of(column_of(ids))
    if all_of_them and (index == UNKNOWN).any():
        raise UnknownIdError(f"{what}: {ids[(index == UNKNOWN).arg_max()]!r} is not known")
    return vocabulary.ids_of(index.filter(index != UNKNOWN)).to_list()


def _is_text(word: str) -> bool:
    """Whether UTF-8 has its letters; half a pair of surrogates it has not."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def app(saved: SavedModel) -> Starlette:
    """The service of a model, for any ASGI server: one process, which has the model."""
    service = Service(saved)

    @asynccontextmanager
    async def at_work(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(service.work())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def health(_: Request) -> Response:
        sizes = {"items": len(saved.item_table), "users": len(saved.users)}
        model = type(saved.model).__name__
        return JSONResponse({"status": "ok", "model": model, **sizes})

    routes = [
        Route("/health", health),
        Route("/recommend", _endpoint(service, USERS, HISTORIES), methods=["GET", "POST"]),
        Route("/similar", _endpoint(service, ITEMS), methods=["GET", "POST"]),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _refused, Exception: _failed}
    return Starlette(routes=routes, lifespan=at_work, exception_handlers=handlers)


def _endpoint(service: Service, *kinds: str) -> Callable[[Request], Any]:
    """Answers questions of some kinds; with GET those of the first."""

    async def endpoint(request: Request) -> Response:
        try:
            given = _query(request, kinds[0]) if request.method == "GET" else await _body(request)
            kind = _kind(given, kinds)
            lists = await service.ask(service.question(kind, given.pop(kind), given))
        except asyncio.QueueFull:
            return _error(503, f"{LONGEST_QUEUE} requests wait; ask again later")
        except UnknownIdError as error:
            return _error(404, error.args[0])
        except RecsysError as error:
            return _error(400, str(error))
        return JSONResponse({"lists": lists})

    return endpoint


def _query(request: Request, kind: str) -> dict[str, Any]:
    """What a GET asks: `user` or `item`, once or more, and `k`."""
    name, query = kind.removesuffix("s"), request.query_params
    if other := sorted({*query} - {name, "k"}):
        raise BadRequestError(f"there is no {other[0]}; give {name} and k, or POST a body")
    k = query.get("k", "10")
    return {kind: query.getlist(name), "k": int(k) if k.isdecimal() and len(k) < 9 else k}


async def _body(request: Request) -> dict[str, Any]:
    """What a POST asks."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"a body of more than {LARGEST_BODY} bytes; ask for fewer")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the body is no JSON") from error
    if not isinstance(given, dict):
        raise BadRequestError('the body is no object; give {"users": [ID, …], "k": 10}')
    return given


def _kind(given: Mapping[str, Any], kinds: Sequence[str]) -> str:
    """Of which kind a question is: exactly one of them."""
    if other := [name for name in given if name not in (*kinds, "k", *FILTERS)]:
        names = ", ".join((*kinds, "k", *FILTERS))
        raise BadRequestError(f"there is no {other[0][:80]}; there is {names}")
    asked = [kind for kind in kinds if kind in given]
    if len(asked) != 1:
        raise BadRequestError(f"give one of {', '.join(kinds)}")
    return asked[0]


def _error(status: int, words: str) -> Response:
    return JSONResponse({"error": words}, status)


async def _refused(_: Request, error: HTTPException) -> Response:
    return _error(error.status_code, error.detail)


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("%s failed", request.url.path, exc_info=error)
    return _error(500, "the model failed; the service's log says why")
