"""A run's page, of runs made from a small log."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.errors import RunError
from recsys.evaluation.ranking import Protocol
from recsys.evaluation.statistics import compare, holm
from recsys.log.event_log import EventLog
from recsys.report import ranking_page
from recsys.run import ranking
from recsys.scoring import saved_model
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split, global_time, last_basket, leave_last_out, user_holdout

EVIL = "<script>alert('item 3')</script>"
WORDS = [EVIL if item == 3 else f"item {item}" for item in range(12)]
PROTOCOL = Protocol(ks=(3, 5))
CONFIG = """
data: {_target_: recsys.data.sources.table.table, path: /home/someone/shop.csv}
task:
  split: {_target_: recsys.tasks.last_basket, _partial_: true}
  ks: [3, 5]
  mask_history: false
model: {_target_: recsys.models.Again}
trainer: {_target_: recsys.training.TrainingOptions, monitor: recall@3}
baselines: %s
seed: 7
num_items: 12
"""


class Again(ClosedForm):
    """What the user has had, most often first."""

    def compute(self, split: Split) -> None:
        pass

    def score(self, batch: BasketBatch) -> Tensor:
        return batch.counts()


class Fixed(ClosedForm):
    """The same list for everyone."""

    def compute(self, split: Split) -> None:
        pass

    def score(self, batch: BasketBatch) -> Tensor:
        return torch.arange(12.0).expand(len(batch), -1)


def shop(*, titles: bool = True) -> EventLog:
    """40 users with 4 to 6 baskets, mostly of the same few of 12 items."""
    generator = np.random.default_rng(0)
    rows = [
        {"user_id": f"u{user:02}", "item_id": int(item), "timestamp": time, "basket_id": time}
        for user in range(40)
        for time in range(generator.integers(4, 7))
        for item in {*generator.integers(user % 9, user % 9 + 4, size=3)}
    ]
    items = pl.DataFrame({"item_id": range(12), "title": WORDS})
    parts = ["train", "train", "validation", "test"]
    users = pl.DataFrame({"user_id": [f"u{n:02}" for n in range(40)], "split": parts * 10})
    return EventLog.from_frames(pl.DataFrame(rows), items if titles else None, users)


def write_run(
    folder: Path,
    *,
    splitter: Callable[[EventLog], Split] = last_basket,
    titles: bool = True,
    report: dict[str, list[str]] | None = None,
) -> pl.DataFrame:
    """The files of a run with two baselines; returns the test users' metrics."""
    split = splitter(shop(titles=titles))
    task = ranking.task_of(split, PROTOCOL, {"index": None}).with_report(report or {})
    for place, model in (("", Again()), ("baselines/a<b$c$", Fixed()), ("baselines/twin", Again())):
        parts = split.validation, split.test
        results = {part.name: ranking.evaluate_part(model, part, task) for part in parts}
        (folder / place).mkdir(parents=True, exist_ok=True)
        ranking.write_results(folder / place, results, task)
    saved_model.save(folder / "model", Again(), split, {}, mask_history=False)
    (folder / "config.yaml").write_text(CONFIG % '{"a<b$c$": {}, twin: {}}')
    return pl.read_parquet(folder / "per_user.parquet").filter(part="test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to do with what one likes."""
    ignored = shutil.ignore_patterns("report.html")
    return Path(shutil.copytree(finished, tmp_path / "run", ignore=ignored))


@pytest.fixture(scope="module")
def text(finished: Path) -> str:
    return page(finished)


def page(folder: Path) -> str:
    ranking_page.write(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


class Read(HTMLParser):
    """The tags, the text and the attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())

    def values(self, *names: str) -> list[str]:
        return [value or "" for name, value in self.attributes if name in names]


def test_page_needs_nothing_but_itself(text: str) -> None:
    read = Read(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    assert not read.values("src", "href", "onclick")
    targets = read.values("xlink:href") + re.findall(r"url\(([^)]*)\)", text)
    ids = read.values("id")
    assert len(ids) == len(set(ids))
    assert {target.removeprefix("#") for target in targets} == set(ids)
    assert all(target.startswith("#") for target in targets)


def test_titles_and_names_are_text_and_no_markup(text: str) -> None:
    read = Read(text)
    assert EVIL in read.text
    assert read.text.count("a<b$c$") >= 5  # three tables, the bars, the legends
    assert not {"script", "b$c$"} & set(read.tags)


def test_plots_take_every_colour_from_the_page(text: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(plots) == 4 + 2 + 2  # bars, slices, repeat and explore
    assert not [colour for svg in plots for colour in re.findall(r"#[0-9a-f]{6}\b", svg)]


def test_table_holds_means_intervals_and_paired_differences(finished: Path, text: str) -> None:
    per_user = {
        name: pl.read_parquet(finished / name / "per_user.parquet").filter(part="test")["recall@3"]
        for name in ("", "baselines/a<b$c$")
    }
    mean, other = (float(values.mean()) for values in per_user.values())
    assert f'<td class="best">{mean:.4f}<span class="interval">' in text
    assert f"<td>{other:.4f}<span" in text
    assert f'<span class="better">{mean - other:+.4f}</span>' in text
    assert "<span>+0.0000</span>" in text  # against its twin


def test_p_values_are_corrected_over_all_that_are_shown(finished: Path, text: str) -> None:
    names = ["recall@3", "ndcg@3", "phr@3", "mrr@3"]
    model, *others = (
        pl.read_parquet(finished / place / "per_user.parquet").filter(part="test")
        for place in ("", "baselines/a<b$c$", "baselines/twin")
    )
    rows = pl.concat([compare(other, model, names=names) for other in others])
    expected = ["< .001" if p < 0.001 else f"= {p:.3f}" for p in holm(rows["p_value"].to_numpy())]
    assert [unescape(p) for p in re.findall(r"p ((?:&lt;|=) [\d.]+)</span>", text)] == expected
    assert rows["p_holm"].to_list() != holm(rows["p_value"].to_numpy()).tolist()


@pytest.mark.parametrize(
    "splitter",
    [
        last_basket,
        leave_last_out,
        user_holdout,
        partial(global_time, validation_start=2, test_start=4),
    ],
    ids=["last_basket", "leave_last_out", "user_holdout", "global_time"],
)
def test_hits_are_those_of_the_evaluation(
    tmp_path: Path, splitter: Callable[[EventLog], Split]
) -> None:
    history_log = write_run(tmp_path, splitter=splitter)
    user_parts = page(tmp_path).split('<div class="user">')[1:]
    users = []
    for text in user_parts:
        user_id = re.search(r"User (u\d\d)", text)
        assert user_id is not None
        user = history_log.row(by_predicate=pl.col("user_id") == user_id[1], named=True)
        list_items, target_items = (re.findall("<li.*", part) for part in _lists(text)[1:])
        assert len(list_items) == 5
        assert len(target_items) == user["num_targets"]
        hits = [
            len(re.findall('class="hit"', "".join(entries)))
            for entries in (list_items, target_items)
        ]
        assert hits == [round(user["recall@5"] * user["num_targets"])] * 2
        users.append(user["user_id"])
    assert users == [history_log["user_id"][len(history_log) * n // 4] for n in (1, 2, 3)]
    assert sum("hit" in text for text in user_parts) > 0


def _lists(text: str) -> list[str]:
    return re.findall(r"<[uo]l>.*?</[uo]l>", text, flags=re.DOTALL)


def test_history_is_shown_latest_first_and_without_the_target(text: str) -> None:
    events = shop().events.filter(user_id="u10")
    latest = events.filter(pl.col("timestamp") < pl.col("timestamp").max())["item_id"].reverse()
    words = [WORDS[item] for item in latest.unique(maintain_order=True)]
    (user_part,) = (
        part for part in unescape(text).split('<div class="user">') if "User u10" in part
    )
    assert re.findall(r"<li>(.*)</li>", _lists(user_part)[0]) == words


def test_the_same_folder_gives_the_same_bytes_and_nothing_else(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    assert page(run) == page(run)
    assert {path.name for path in run.iterdir()} == before | {"report.html"}


def test_curves_mark_the_first_best_epoch_of_model_and_members(run: Path) -> None:
    assert "<h2>Training</h2>" not in page(run)
    curve = "epoch,train/loss,validation/recall@3\n0,4,\n1,3,.2\n2,2,\n3,1.5,.3\n4,1.2,.3\n"
    (run / "train.csv").write_text(curve)
    (run / "members/vae").mkdir(parents=True)
    (run / "members/vae/train.csv").write_text(curve.replace("1,3,.2", "1,3,.4"))
    read = Read(page(run))
    assert read.tags.count("svg") == 4 + 4 + 2 + 2
    assert read.text.count("best epoch: 3") == 2
    assert read.text.count("best epoch: 1") == 2
    assert {"training loss", "validation/recall@3", "training loss of vae"} <= set(read.text)


def test_map_of_users_in_the_colours_of_what_is_known_of_them(run: Path) -> None:
    assert "<h2>A map of the users</h2>" not in page(run)
    generator = np.random.default_rng(0)
    columns = {"user_id": range(40), "as_of": 9, "vector": generator.normal(size=(40, 4))}
    columns |= {"town": [EVIL, "b", None, "b"] * 10, "kids": [0, 1] * 20}
    pl.DataFrame(columns).write_parquet(run / "profiles.parquet")
    text = page(run)
    assert text == page(run)
    read = Read(text)
    assert read.values("aria-label").count("map of 40 users by town") == 1
    legend = re.findall(r"●</span> (.*) <span class=\"note\">(\d+)<", unescape(text))
    assert legend == [(EVIL, "10"), ("b", "20"), ("unknown", "10")]
    (run / "config.yaml").write_text(CONFIG % "{}" + "report: {map_by: kids}")
    assert "map of 40 users by kids" in page(run)


def test_what_was_measured_besides_is_shown(tmp_path: Path) -> None:
    report = {"beyond": ["title"], "slices": ["split"]}
    write_run(tmp_path, report=report)
    config = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config + "report: {beyond: [title], slices: [split]}")
    text = page(tmp_path)
    assert "<th>miscalibration/title@3</th>" in text
    for value in ("train", "validation", "test"):
        assert f"<td>{value}</td>" in text
    gaps = json.loads((tmp_path / "slices.json").read_text())["split"]["gaps"]
    assert f"{gaps[0]['higher']} − {gaps[0]['lower']}" in text
    assert "detects" in text


def test_run_without_baselines(run: Path) -> None:
    shutil.rmtree(run / "baselines")
    (run / "config.yaml").write_text(CONFIG % "{}")
    text = page(run)
    assert "minus each baseline" not in text
    assert "baseline with the highest recall" not in text
    read = Read(text)
    assert read.tags.count("svg") == 2 + 1  # slices, repeat beside explore; no bar stands alone
    assert 'class="best"' not in text


def test_head_says_when_the_run_was_and_what_is_in_its_log(run: Path) -> None:
    log = {"name": "shop", "users": 40, "items": 12, "events": 1234}
    overview = {"density": 0.51, "baskets": 200, "first": "2024-01-01", "last": "2024-06-30"}
    (run / "log.json").write_text(json.dumps(log | {"overview": overview}))
    noted = {"started": "2026-01-02T03:04:05+00:00", "seconds": 131.0}
    (run / "timing.json").write_text(json.dumps({"run": noted}))
    text = page(run)
    assert "<h1>Again on shop</h1>" in text
    facts = dict(re.findall("<dt>(.*)</dt><dd>(.*)</dd>", text.partition("</header>")[0]))
    assert facts["data"] == "shop (shop.csv)"
    assert facts["users and items"] == "40 and 12"
    assert facts["events"] == "1,234 in 200 baskets"
    assert facts["density"] == "51% of all pairs of a user and an item"
    assert facts["dates"] == "2024-01-01 to 2024-06-30"
    assert (facts["run"], facts["duration"]) == ("2026-01-02 03:04 UTC", "2 min")


def test_log_without_titles_shows_ids(tmp_path: Path) -> None:
    write_run(tmp_path, titles=False)
    list_items = re.findall(r"<li[^>]*>(.*)</li>", page(tmp_path))
    assert {int(words) for words in list_items} <= set(range(12))
    assert len(list_items) > 15


def test_two_test_users_are_shown_once_each(run: Path) -> None:
    for place in ("", "baselines/a<b$c$", "baselines/twin"):
        path = run / place / "per_user.parquet"
        pl.read_parquet(path).filter(part="test").head(2).write_parquet(path)
    assert re.findall(r"<h3>User (.*)</h3>", page(run)) == ["u00", "u01"]


@pytest.mark.parametrize(("lost", "other"), [("repeat", "explore"), ("explore", "repeat")])
def test_metric_that_no_user_defines_has_no_plot(run: Path, lost: str, other: str) -> None:
    for place in ("", "baselines/a<b$c$", "baselines/twin"):
        path = run / place / "metrics.json"
        path.write_text(re.sub(rf'"{lost}/recall@3": [\d.]+,', "", path.read_text()))
    read = Read(page(run))
    assert f"{other}/recall@3" in read.text
    assert f"{lost}/recall@3" not in read.text


@pytest.mark.parametrize("lost", ["config.yaml", "metrics.json"])
def test_folder_without_a_finished_run_is_refused(run: Path, lost: str) -> None:
    (run / lost).unlink()
    with pytest.raises(RunError, match=f"{run} holds no finished run: there is no {lost}"):
        ranking_page.write(run)
    assert not (run / "report.html").exists()
