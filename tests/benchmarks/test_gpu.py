"""What `make gpu` runs, in small and on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import recsys.models
from benchmarks.gpu import families
from benchmarks.gpu.card import name_of, watched
from benchmarks.gpu.tests import files
from benchmarks.record import ROOT
from benchmarks.report import gpu_rows
from recsys.scoring.forecaster import Forecaster
from recsys.scoring.survival import SurvivalPredictor
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

CPU = torch.device("cpu")


def gpu(*arguments: object, parts: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments), "--parts", *parts]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_part_leaves_a_record(tmp_path: Path) -> None:
    parts = ["tests", "families", "training", "retrieval"]
    process = gpu("--device", "cpu", "--small", "--output", tmp_path, parts=parts)
    assert process.returncode == 0, process.stdout + process.stderr
    records = {part: json.loads((tmp_path / f"{part}.json").read_text()) for part in parts}
    assert {record["card"] for record in records.values()} == {"cpu"}
    assert records["tests"]["ended"]["skipped"]
    assert all(row["alike"] for row in records["families"]["families"].values())
    assert {row["precision"] for row in records["training"]["models"].values()} == {
        "32-true",
        "bf16-mixed",
    }
    language = records["training"]["models"]["LMRec"]
    assert language["tokens_per_second"] > 0
    assert 0 < language["flop_utilisation"] < 1
    rows = gpu_rows(records["training"])
    assert len(rows) == 5
    assert rows[-1].startswith("| cpu | LMRec | ")
    assert {row.count("|") for row in rows} == {9}
    assert set(records["retrieval"]["searches"][0]["sides"]) == {
        "product",
        "product_in_place",
        "exact",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    process = gpu(parts=["retrieval"])
    assert process.returncode == 2
    assert (
        process.stderr == "benchmarks.gpu: device=cuda: there is cpu or auto; choose among them\n"
    )


def test_every_model_is_among_the_families() -> None:
    named = set(families.scorers(last_basket(checkerboard()))) | {"MLP", "FineTuned"}
    on_the_processor_alone = {
        *("Blend", "CandidateSize", "LightGBM", "LogisticRegression"),
        *("NewEASE", "NewPopularity", "OwnPurchases"),
    }
    rankers_and_predictors = {  # the contracts of the other kinds have tests on a second device
        name
        for name in recsys.models.__all__
        if not issubclass(getattr(recsys.models, name), Forecaster | SurvivalPredictor)
    }
    assert named | on_the_processor_alone == rankers_and_predictors


def test_the_files_with_tests_for_a_gpu() -> None:
    names = {path.name for path in files()}
    assert {"test_contract.py", "test_index.py", "test_loop.py"} <= names
    assert "test_event_log.py" not in names


def test_a_processor_tells_no_memory() -> None:
    assert name_of(CPU) == "cpu"
    with watched(CPU) as usage:
        pass
    assert usage == {"peak_memory_mib": None, "utilisation": None}
