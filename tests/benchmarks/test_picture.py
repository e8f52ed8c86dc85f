"""The README's picture says what the records say."""

import re

import polars as pl

from benchmarks import picture
from benchmarks.record import ROOT


def test_its_figures_are_those_of_the_records_and_of_the_table() -> None:
    drawn = re.findall(r">(\.\d{4})<", picture.PICTURE.read_text())
    of_records = [
        pl.read_parquet(picture.RESULTS / f"{model.format(log=log)}.parquet", glob=False)[
            "ndcg@10"
        ].mean()
        for log in picture.LOGS
        for model in picture.MODELS
    ]
    assert drawn == [picture.shown(mean) for mean in of_records]
    table = (ROOT / "docs/results.md").read_text()
    assert [figure for figure in drawn if figure not in table] == []


def test_a_point_lies_between_the_ends_of_its_interval() -> None:
    for mean, low, high in picture.points("dc").values():
        assert low < mean < high
