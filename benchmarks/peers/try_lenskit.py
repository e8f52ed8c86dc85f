"""Try LensKit, row by row of `docs/peers.md`; write `results/lenskit.json`.

    python3.11 -m venv lenskit_env
    lenskit_env/bin/pip install lenskit==2025.8.1 torch==2.13.0 polars hypothesis pytest
    RECSYS_DATA=FOLDER lenskit_env/bin/python benchmarks/peers/try_lenskit.py

The folder holds RecBole's `ml-100k/ml-100k.inter`. 2025.8.1 is the last version for Python 3.11;
from 2026.1.0 on it is 3.12.5.
"""

import os
import re
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import pandas as pd
from lenskit import batch, recommend
from lenskit.als import ImplicitMFScorer
from lenskit.basic import PopScorer
from lenskit.data import Dataset, ItemList, ItemListCollection, RecQuery, from_interactions_df
from lenskit.knn import EASEScorer, ItemKNNScorer
from lenskit.metrics import NDCG, RMSE, ListGini, MeanPopRank, RunAnalysis
from lenskit.metrics.reranking import rank_biased_overlap
from lenskit.pipeline import Pipeline, predict_pipeline, topn_pipeline
from lenskit.splitting import LastN, crossfold_users, split_global_time
from outcomes import AbsentError, main, row, words_are_absent

warnings.simplefilter("ignore")


@cache
def events() -> pd.DataFrame:
    path = Path(os.environ["RECSYS_DATA"]) / "ml-100k/ml-100k.inter"
    names = ["user_id", "item_id", "rating", "timestamp"]
    frame = pd.read_csv(path, sep="\t", skiprows=1, names=names)
    return frame.assign(timestamp=pd.to_datetime(frame["timestamp"], unit="s"))


@cache
def dataset() -> Dataset:
    return from_interactions_df(events())


@cache
def pipeline(scorer: type = ItemKNNScorer) -> Pipeline:
    model = topn_pipeline(scorer(feedback="implicit") if scorer is ItemKNNScorer else scorer())
    model.train(dataset())
    return model


@cache
def fold() -> object:
    return split_global_time(dataset(), "1998-04-01", filter_test_users=True)


@cache
def run() -> object:
    model = topn_pipeline(PopScorer())
    model.train(fold().train)
    return batch.recommend(model, list(fold().test.keys())[:50], n=10, n_jobs=1)


def measured(*metrics: object) -> object:
    analysis = RunAnalysis()
    for metric in metrics:
        analysis.add_metric(metric)
    return analysis.measure(run(), fold().test)


@row("works after a plain `pip install`")
def installed() -> str:
    return "as the first lines of this file say"


@row("a pandas frame")
def pandas_frame() -> str:
    return f"from_interactions_df: {dataset().user_count} users"


@row("a polars frame")
def polars_frame() -> str:
    import polars as pl

    return (
        f"from_interactions_df: {from_interactions_df(pl.from_pandas(events())).user_count} users"
    )


def command_line(*words: str) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "lenskit", *words], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise RuntimeError((made.stderr or made.stdout).strip().splitlines()[-1])
    return made.stdout


@row("any table by the names of its columns, without code")
def table() -> str:
    kinds = re.findall(r"--(movielens|amazon|ms-web)", command_line("data", "convert", "--help"))
    raise AbsentError(f"`lenskit data convert` reads the original files of {', '.join(kinds)}")


@row("published logs by name")
def published() -> str:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "ml-latest-small"
        source.mkdir()
        (source / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3.0,1000000000\n")
        (source / "movies.csv").write_text("movieId,title,genres\n2,A film (1998),Drama\n")
        (source / "links.csv").write_text("movieId,imdbId,tmdbId\n2,1,1\n")
        (source / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,2,dark,1000000000\n")
        command_line("data", "convert", "--movielens", str(source), f"{folder}/out")
        return f"lenskit data convert --movielens: {Dataset.load(f'{folder}/out').user_count} users"


@row("the next item")
def next_item() -> str:
    folds = list(crossfold_users(dataset(), 2, LastN(1)))
    return f"crossfold_users with LastN(1): {len(folds[0].test)} test users of the first fold"


@row("a split at a moment")
def moment() -> str:
    return f"split_global_time: {fold().test_size} test rows"


@row("several windows of time in one call")
def windows() -> str:
    folds = split_global_time(dataset(), ["1998-02-01", "1998-03-01", "1998-04-01"])
    return f"split_global_time of three moments: {len(folds)} folds"


@row("users that training has not seen")
def unseen() -> str:
    folds = split_global_time(dataset(), "1998-02-01")
    known = set(events()[events()["timestamp"] < "1998-02-01"]["user_id"])
    new = {key.user_id for key in list(folds.test.keys())} - known
    return (
        f"split_global_time(filter_test_users=False): {len(new)} test users without training rows"
    )


@row("ratings and clicks")
def ratings() -> str:
    from lenskit.basic import BiasScorer

    model = predict_pipeline(BiasScorer())
    model.train(fold().train)
    predicted = batch.predict(model, fold().test, n_jobs=1)
    analysis = RunAnalysis()
    analysis.add_metric(RMSE())
    means = analysis.measure(predicted, fold().test).list_summary()
    return f"RMSE of BiasScorer {means.iloc[0, 0]:.3f}"


@row("every item of the catalogue is a candidate by default")
def full() -> str:
    made = recommend(pipeline(PopScorer), 1, n=5000)
    seen = len(dataset().user_row(1))
    return f"recommend ranks {len(made)} of {dataset().item_count} items, {seen} being rated"


@row("whether a history stays in the lists is an option")
def mask() -> str:
    from lenskit.basic import AllTrainingItemsCandidateSelector as Everything
    from lenskit.pipeline import RecPipelineBuilder

    builder = RecPipelineBuilder()
    builder.scorer(PopScorer())
    builder.candidate_selector(Everything())
    model = builder.build()
    model.train(dataset())
    kept = recommend(model, 1, n=3).ids().tolist()
    return (
        f"the candidate selector: {recommend(pipeline(PopScorer), 1, n=3).ids().tolist()}, {kept}"
    )


@row("metrics of each user")
def per_user() -> str:
    return f"list_metrics: {len(measured(NDCG(10)).list_metrics())} rows"


@row("diversity, novelty, serendipity")
def beyond() -> str:
    found = measured(MeanPopRank(fold().train), ListGini(items=fold().train))
    means = found.list_summary()["mean"].round(3).to_dict() | found.global_metrics().to_dict()
    return f"{means}"


@row("how much the lists of models overlap, and how many are too short")
def quality() -> str:
    lists = [recommend(pipeline(scorer), 1, n=10) for scorer in (ItemKNNScorer, PopScorer)]
    found = rank_biased_overlap(*lists)
    return f"rank-biased overlap of two lists {found:.3f}"


@row("models that rank a catalogue")
def models() -> str:
    import lenskit
    from lenskit.pipeline import Component

    folder = Path(lenskit.__file__).parent
    names = {
        name
        for path in folder.rglob("*.py")
        for name in re.findall(r"^class ([A-Z]\w*(?:Scorer))\(", path.read_text(), re.MULTILINE)
        if not re.search("Base|Composite|Fallback|MemoScorer", name)
    }
    return f"{len(names)} scorers, each a {Component.__name__}: {', '.join(sorted(names))[:170]}"


@row("several models in one table")
def several() -> str:
    runs = ItemListCollection(["model", "user_id"])
    for name, scorer in {"popular": PopScorer(), "ease": EASEScorer()}.items():
        model = topn_pipeline(scorer)
        model.train(fold().train)
        lists = batch.recommend(model, list(fold().test.keys())[:20], n=10, n_jobs=1)
        runs.add_from(lists, model=name)
    analysis = RunAnalysis()
    analysis.add_metric(NDCG(10))
    return f"{analysis.measure(runs, fold().test).list_summary('model')['mean'].to_dict()}"


@row("only some items may be recommended")
def allowed() -> str:
    return f"items: {recommend(pipeline(), 1, n=5, items=[1, 2, 3, 4, 5, 300, 301]).ids().tolist()}"


@row("other items by user may be recommended")
def by_user() -> str:
    made = [recommend(pipeline(), user, n=5, items=[user, 300]).ids().tolist() for user in (1, 2)]
    return f"items, of one user a call: {made}"


@row("items like an item")
def similar() -> str:
    query = RecQuery(context_items=ItemList([1]), query_source="context")
    return f"a query with context_items: {recommend(pipeline(), query, n=3).ids().tolist()}"


@row("an unknown user: an error, or left out, as one says")
def unknown() -> str:
    made = (
        len(recommend(pipeline(EASEScorer), 999999, n=3)),
        len(recommend(pipeline(PopScorer), 999999, n=3)),
    )
    raise AbsentError(f"lists of {made[0]} (EASE) and {made[1]} items (popularity), without a line")


@row("answers in place of a user that a model has nothing for")
def fallback() -> str:
    from lenskit.basic import BiasScorer, FallbackScorer

    names = FallbackScorer.__name__, BiasScorer.__name__
    return f"{names[0]} in a pipeline, as predict_pipeline has with {names[1]}"


@row("a list for any history, without fitting again")
def history() -> str:
    query = RecQuery(history_items=ItemList([50, 181, 172]))
    return f"RecQuery(history_items): {recommend(pipeline(), query, n=3).ids().tolist()}"


@row("a saved model that runs no code when it is opened")
def opened() -> str:
    with tempfile.TemporaryDirectory() as folder:
        dataset().save(f"{folder}/data")
        model = f"{folder}/model.pkl"
        command_line("train", "-C", "lenskit.basic.PopScorer", "-o", model, f"{folder}/data")
        start = Path(model).read_bytes()[:2]
        command_line("recommend", "-n", "3", "-d", f"{folder}/data", model, "1")
    raise AbsentError(f"`lenskit train` writes a pickle (it begins with {start!r})")


@row("from a file to a table of results by one command")
def command() -> str:
    text = command_line("--help")
    commands = re.findall(r"^  (\w+)  ", text, re.MULTILINE)
    raise AbsentError(f"commands of their own to convert, split, train, recommend: {commands}")


@row("a contract for a model of one's own")
def contract() -> str:
    from lenskit.testing import ScorerTests

    return (
        f"ScorerTests: {len([name for name in dir(ScorerTests) if name.startswith('test_')])} tests"
    )


@row("components that are joined to a pipeline of one's own")
def joined() -> str:
    config = topn_pipeline(ImplicitMFScorer(features=8)).config.model_dump()
    return f"topn_pipeline: {', '.join(config['components'])}"


words_are_absent(
    "lenskit",
    "guess what a file's columns are",
    "next baskets as such",
    "intervals of means",
    "paired tests, corrected for their number",
    "the smallest difference that a test finds",
    "metrics by groups of users",
    "a page of results",
    "an application that shows lists of models side by side",
    "what is known of items and users in a ranking model",
    "a language model of a log's words",
    "vectors of texts in a model",
    "labels of users as of a moment",
    "when a user is back",
    "what is sold in the days ahead",
    "lists with less of the same",
    "answers over HTTP",
    "explanations of a list",
    "an approximate index",
    "logs larger than memory",
    "knowledge graphs",
    "two stages: candidates, then trees",
    "models that go on from what was taken up or not",
    "federated training",
    "several domains of one log",
    "files for other run-times",
)

if __name__ == "__main__":
    main("lenskit", ["lenskit", "torch", "numpy", "pandas", "scipy"])
