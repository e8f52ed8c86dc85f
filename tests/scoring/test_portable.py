"""Scores of plain tensors against those of histories; as ONNX, where its packages are there."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError
from recsys.models import EASE, Popularity, SASRec, UniSRec
from recsys.models.sequences import Encoder, Ranking, SingularVectors
from recsys.scoring.kinds import Portable
from recsys.scoring.portable import portable, write_onnx
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

SPLIT = last_basket(checkerboard(num_users=40, num_items=20))
HISTORIES = [[3, 4, 5], [], [7], [1, 2, 3, 4, 5, 6, 7, 1]]
ITEMS = torch.tensor([[*history, *[9] * (8 - len(history))] for history in HISTORIES])
LENGTHS = torch.tensor([len(history) for history in HISTORIES])


def sasrec(repeats: bool) -> SASRec:
    encoder = Encoder(max_length=8, num_heads=2)
    return SASRec(20, embedding_dim=8, encoder=encoder, ranking=Ranking(repeats=repeats))


def unisrec() -> UniSRec:
    model = UniSRec(20, embedding_dim=8, text=SingularVectors(2))
    model.prepare(SPLIT)
    return model


MODELS = {
    "ease": lambda: EASE(l2=5.0).fit(SPLIT),
    "sasrec": lambda: sasrec(repeats=False),
    "repeats": lambda: sasrec(repeats=True),
    "unisrec": unisrec,
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Portable:
    torch.manual_seed(0)
    return portable(MODELS[request.param]().eval())


def expected(model: Portable) -> torch.Tensor:
    batch = BasketBatch.from_lists([[[item] for item in row] for row in HISTORIES], 20)
    with torch.no_grad():
        return model.score(batch)


@torch.no_grad()
def test_scores_of_padded_rows_are_those_of_histories(model: Portable) -> None:
    scores = model.portable().eval()(ITEMS, LENGTHS)
    torch.testing.assert_close(scores, expected(model), atol=1e-5, rtol=1e-5)


def test_a_file_of_onnx_scores_alike(model: Portable, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    write_onnx(tmp_path / "model.onnx", model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["items", "lengths"]
    for rows in (slice(None), slice(2, 3)):  # any number of users, and any length
        width = int(LENGTHS[rows].max())
        given = {"items": ITEMS[rows, :width].numpy(), "lengths": LENGTHS[rows].numpy()}
        (scores,) = session.run(["scores"], given)
        np.testing.assert_allclose(scores, expected(model)[rows].numpy(), atol=1e-5, rtol=1e-4)


def test_what_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Popularity is not written as ONNX; sasrec, unisrec"):
        portable(Popularity().fit(SPLIT))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"needs the package onnx; pip install 'recsys\[onnx\]'"):
        write_onnx(tmp_path / "model.onnx", EASE().fit(SPLIT))
    assert list(tmp_path.iterdir()) == []
