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


LOGS = [
    "dc",
    "tafeng",
    "tms",
    "complete_journey",
    "complete_journey_types",
    "online_retail_baskets",
]
ROWS = {
    "personal frequency, decayed": "decayed_personal/{}",
    "TIFUKNN": "tifuknn/{}",
    "UP-CF": "up_cf/{}",
    "count VAE beside personal frequency": "count_vae_personal/{}",
    "EASE": "ease/{}",
    "item-kNN": "item_knn/{}",
    "DNNTSP": "dnntsp/{}",
    "GLOIE, the paper's shape": "gloie/{}",
    "GLOIE with options chosen for each log": "gloie_plus/{}",
    "GLOIE with one setting for all, `gloie_plus/any`": "gloie_plus/{}_any",
}


def cells(page: str) -> dict[str, list[str]]:
    """The rows of a page's tables, by their first cell; of two alike the first."""
    lines = (ROOT / page).read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:2] == "| "]
    return {row[0]: row[1:] for row in reversed(rows)}


def test_the_table_of_next_baskets_is_that_of_the_benchmarks() -> None:
    of_records, page = cells("benchmarks/README.md"), cells("docs/results.md")
    assert page.keys() >= ROWS.keys()
    for name, experiment in ROWS.items():
        for log, cell in zip(LOGS, page[name], strict=False):
            if cell:
                recall, ndcg = (
                    f.split()[0] for f in of_records[f"`{experiment.format(log)}`"][1:3]
                )
                assert cell.replace("*", "") == f"{ndcg} / {recall}", (name, log)


TITLES = ["DC", "Ta-Feng", "TMS", "Complete Journey", "Complete Journey, types", "Online Retail"]
RIVALS = {
    "decayed frequency": "decayed_personal",
    "TIFUKNN": "tifuknn",
    "UP-CF": "up_cf",
    "count VAE": "count_vae_personal",
    "EASE": "ease",
    "item-kNN": "item_knn",
    "DNNTSP": "dnntsp",
}


def test_what_is_beyond_chance_is_so_in_the_benchmarks() -> None:
    """Against the strongest of the other models, after Holm's correction; of the README, too."""
    lines = (ROOT / "benchmarks/README.md").read_text().splitlines()
    tests = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    holm = {tuple(row[:3]): row[6].removeprefix("0") for row in tests if len(row) == 8}
    of_records, page = cells("benchmarks/README.md"), cells("docs/results.md")
    for log, title in zip(LOGS, TITLES, strict=True):
        for cell, metric, place in zip(page[title], ("ndcg@10", "recall@10"), (2, 1), strict=True):
            said = re.search(r"p ([=<]) (\S+) \((.+)\)", cell)
            assert said is not None, (title, metric)
            is_less, p, rival = said[1] == "<", said[2], RIVALS[said[3]]
            means = {
                name: float(of_records[f"`{name}/{log}`"][place].split()[0])
                for name in RIVALS.values()
                if f"`{name}/{log}`" in of_records
            }
            assert means[rival] == max(means.values()), (title, metric)
            measured = holm[f"gloie_plus/{log}_any", f"{rival}/{log}", metric]
            assert float(measured) < float(p) if is_less else measured == p, (title, metric)
    assert f"p = {holm['gloie_plus/dc_any', 'count_vae_personal/dc', 'ndcg@10']} on DC." in (
        (ROOT / "README.md").read_text()
    )
