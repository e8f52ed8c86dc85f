"""Try RecTools, row by row of `docs/peers.md`; write `results/rectools.json`.

    python3.11 -m venv rectools_env
    rectools_env/bin/pip install 'rectools[torch,visuals,nmslib,catboost]==0.19.0'
    rectools_env/bin/pip install torch==2.13.0 polars
    RECSYS_DATA=FOLDER rectools_env/bin/python benchmarks/peers/try_rectools.py

The folder holds RecBole's `ml-100k/ml-100k.inter`.
"""

import os
import re
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from outcomes import AbsentError, main, row, words_are_absent
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import NDCG, CoveredUsers, Intersection, IntraListDiversity, Serendipity
from rectools.metrics.distances import PairwiseHammingDistanceCalculator
from rectools.model_selection import LastNSplitter, TimeRangeSplitter, cross_validate
from rectools.models import EASEModel, PopularModel, SASRecModel, load_model

warnings.simplefilter("ignore")


@cache
def events() -> pd.DataFrame:
    path = Path(os.environ["RECSYS_DATA"]) / "ml-100k/ml-100k.inter"
    names = [Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]
    frame = pd.read_csv(path, sep="\t", skiprows=1, names=names)
    return frame.assign(datetime=pd.to_datetime(frame[Columns.Datetime], unit="s"))


@cache
def dataset() -> Dataset:
    return Dataset.construct(events())


@cache
def ease() -> EASEModel:
    return EASEModel(regularization=250).fit(dataset())


def lists(**options: object) -> pd.DataFrame:
    return ease().recommend(
        **{"users": [1, 2], "dataset": dataset(), "k": 5, "filter_viewed": True} | options
    )


@row("works after a plain `pip install`")
def installed() -> str:
    return "as the first lines of this file say"


@row("a pandas frame")
def pandas_frame() -> str:
    return f"Dataset.construct: {dataset().n_hot_users} users"


@row("a polars frame")
def polars_frame() -> str:
    import polars as pl

    frame = pl.DataFrame({name: events()[name].to_numpy() for name in events().columns})
    return f"Dataset.construct: {Dataset.construct(frame).n_hot_users} users"


@row("any table by the names of its columns, without code")
def table() -> str:
    raise AbsentError(
        "no command line: a frame with the columns of rectools.Columns is built first"
    )


@row("published logs by name")
def published() -> str:
    from rectools import dataset as module

    loaders = [name for name in dir(module) if re.search("^load|fetch|movielens", name)]
    if not loaders:
        raise AbsentError("rectools.dataset has no loader")
    return ", ".join(loaders)


@row("the next item")
def next_item() -> str:
    folds = list(LastNSplitter(1).split(dataset().interactions))
    return f"LastNSplitter(1): {len(folds[0][1])} test rows"


@row("a split at a moment")
def moment() -> str:
    folds = list(TimeRangeSplitter("7D").split(dataset().interactions))
    return f"TimeRangeSplitter('7D'): {len(folds[0][1])} test rows"


@cache
def cross_validated() -> dict:
    return cross_validate(
        dataset=dataset(),
        splitter=TimeRangeSplitter("7D", n_splits=2),
        metrics={"ndcg": NDCG(10)},
        models={"ease": EASEModel(), "popular": PopularModel()},
        k=10,
        filter_viewed=True,
    )


@row("several windows of time in one call")
def windows() -> str:
    folds = len(cross_validated()["splits"])
    return f"cross_validate with TimeRangeSplitter(n_splits=2): {folds} folds"


@row("users that training has not seen")
def unseen() -> str:
    splitter = TimeRangeSplitter("30D", filter_cold_users=False)
    train, test, _ = next(splitter.split(dataset().interactions))
    users = dataset().interactions.df[Columns.User].to_numpy()
    new = set(users[test]) - set(users[train])
    return f"TimeRangeSplitter(filter_cold_users=False): {len(new)} users without training rows"


@row("every item of the catalogue is a candidate by default")
def full() -> str:
    many = lists(users=[1], k=5000, filter_viewed=False)
    return f"recommend ranks {len(many)} of {dataset().n_hot_items} items"


@row("whether a history stays in the lists is an option")
def mask() -> str:
    kept = lists(users=[1], filter_viewed=False)[Columns.Item].tolist()
    return f"filter_viewed: {lists(users=[1])[Columns.Item].tolist()} and {kept}"


def held() -> pd.DataFrame:
    return events()[events()[Columns.User] <= 2]


@row("metrics of each user")
def per_user() -> str:
    return f"NDCG.calc_per_user: {NDCG(5).calc_per_user(lists(), held()).round(3).to_dict()}"


@row("diversity, novelty, serendipity")
def beyond() -> str:
    features = pd.DataFrame({"odd": np.arange(1700) % 2}, index=np.arange(1700))
    distances = PairwiseHammingDistanceCalculator(features)
    diversity = IntraListDiversity(5, distances).calc(lists())
    serendipity = Serendipity(5).calc(lists(), held(), events(), events()[Columns.Item].unique())
    return f"IntraListDiversity {diversity:.3f}, Serendipity {serendipity:.3f}"


@row("how much the lists of models overlap, and how many are too short")
def quality() -> str:
    other = PopularModel().fit(dataset()).recommend([1, 2], dataset(), 5, True)
    overlap = Intersection(5).calc(lists(), other)
    return f"Intersection {overlap:.2f}, CoveredUsers {CoveredUsers(5).calc(lists(), held())}"


@row("several models in one table")
def several() -> str:
    rows = pd.DataFrame(cross_validated()["metrics"])
    return f"cross_validate: ndcg {rows.groupby('model')['ndcg'].mean().round(3).to_dict()}"


@row("an application that shows lists of models side by side")
def application() -> str:
    from rectools.visuals import VisualApp

    titles = pd.DataFrame({Columns.Item: np.arange(1700), "title": np.arange(1700).astype(str)})
    reco = {"ease": lists(), "again": lists()}
    app = VisualApp.construct(reco, events(), titles, n_random_users=1, auto_display=False)
    return f"VisualApp for notebooks, with {len(app.data_storage.model_names)} models"


@row("a page of results")
def page() -> str:
    from rectools.visuals import MetricsApp

    metrics = pd.DataFrame(cross_validated()["metrics"])
    app = MetricsApp.construct(metrics, auto_display=False)
    return f"{type(app).__name__}, a widget of a notebook, of {len(app.model_names)} models"


@row("models that rank a catalogue")
def models() -> str:
    import rectools.models as module

    names = [name for name in module.__all__ if name.endswith("Model")]
    return f"{len(names)} of rectools.models and UniSRecModel"


@row("vectors of texts in a model")
def texts() -> str:
    import inspect

    from rectools.fast_transformers.unisrec import UniSRecModel

    return (
        f"UniSRecModel: {', '.join(list(inspect.signature(UniSRecModel.__init__).parameters)[1:4])}"
    )


@row("what is known of items and users in a ranking model")
def features() -> str:
    feature = pd.DataFrame({"id": [1, 2], "value": ["a", "b"], "feature": "kind"})
    data = Dataset.construct(events(), item_features_df=feature, cat_item_features=["kind"])
    model = SASRecModel(n_factors=8, n_blocks=1, n_heads=1, session_max_len=10, epochs=1)
    model.fit(data)
    return f"SASRecModel, fitted with {data.item_features.names}"


@row("two stages: candidates, then trees")
def stages() -> str:
    from catboost import CatBoostClassifier
    from rectools.models.ranking import CandidateGenerator, CandidateRankingModel, CatBoostReranker

    trees = CatBoostReranker(CatBoostClassifier(iterations=10, verbose=False))
    generator = CandidateGenerator(PopularModel(), 20, keep_ranks=True, keep_scores=True)
    model = CandidateRankingModel([generator], TimeRangeSplitter("7D"), trees)
    made = model.fit(dataset()).recommend([1], dataset(), 5, True)
    return f"CandidateRankingModel with CatBoostReranker: {len(made)} items"


@row("only some items may be recommended")
def allowed() -> str:
    items = set(lists(items_to_recommend=[1, 2, 3, 4, 5, 6])[Columns.Item])
    return f"items_to_recommend: {sorted(items)}"


@row("other items by user may be recommended")
def by_user() -> str:
    table = pd.DataFrame({Columns.User: [1, 2], Columns.Item: [1, 2]})
    return f"items_to_recommend of a table: {lists(items_to_recommend=table)}"


@row("items like an item")
def similar() -> str:
    made = ease().recommend_to_items([1], dataset(), 3)
    return f"recommend_to_items: {made[Columns.Item].tolist()}"


@row("an unknown user: an error, or left out, as one says")
def unknown() -> str:
    kept = lists(users=[1, 999999], on_unsupported_targets="warn")[Columns.User].unique().tolist()
    try:
        lists(users=[1, 999999])
    except ValueError as error:
        return f"on_unsupported_targets: raise ({str(error)[:60]}…), warn keeps {kept}"
    raise AbsentError("no error")


@row("a list for any history, without fitting again")
def history() -> str:
    model = SASRecModel(n_factors=8, n_blocks=1, n_heads=1, session_max_len=10, epochs=1)
    model.fit(dataset())
    new = events()[events()[Columns.User] == 1].assign(user_id=999999)
    made = model.recommend([999999], Dataset.construct(new), 3, True)
    return f"SASRecModel, asked with a data set of other users: {made[Columns.Item].tolist()}"


@row("a saved model that runs no code when it is opened")
def opened() -> str:
    with tempfile.TemporaryDirectory() as folder:
        ease().save(f"{folder}/model")
        start = Path(f"{folder}/model").read_bytes()[:2]
        load_model(f"{folder}/model")
    raise AbsentError(f"save writes a pickle (it begins with {start!r}), load_model unpickles it")


@row("an approximate index")
def approximate() -> str:
    from rectools.models import PureSVDModel
    from rectools.tools import UserToItemAnnRecommender

    users, items = PureSVDModel(factors=8).fit(dataset()).get_vectors()
    maps = dataset().user_id_map, dataset().item_id_map
    index = UserToItemAnnRecommender(users, items, *maps).fit()
    return f"UserToItemAnnRecommender (nmslib): {index.get_item_list_for_user(1, top_n=3)}"


@row("files for other run-times")
def exported() -> str:
    from rectools.fast_transformers.unisrec import UniSRecModel

    return f"UniSRecModel.{UniSRecModel.export_to_onnx.__name__}; the file was not written here"


@row("a run goes on after it was killed")
def resumed() -> str:
    from rectools.models.nn.transformers.base import TransformerModelBase

    return f"{TransformerModelBase.load_from_checkpoint.__qualname__}, fit_partial of SASRecModel"


@row("from a file to a table of results by one command")
def command() -> str:
    import importlib.metadata

    scripts = importlib.metadata.distribution("rectools").entry_points
    if not scripts:
        raise AbsentError("the package has no command")
    return str(scripts)


words_are_absent(
    "rectools",
    "guess what a file's columns are",
    "next baskets as such",
    "intervals of means",
    "paired tests, corrected for their number",
    "the smallest difference that a test finds",
    "metrics by groups of users",
    "a language model of a log's words",
    "labels of users as of a moment",
    "when a user is back",
    "what is sold in the days ahead",
    "lists with less of the same",
    "answers over HTTP",
    "explanations of a list",
    "logs larger than memory",
    "settings, searched",
    "knowledge graphs",
    "ratings and clicks",
    "models that go on from what was taken up or not",
    "federated training",
    "several domains of one log",
    "a contract for a model of one's own",
)

if __name__ == "__main__":
    main("rectools", ["rectools", "torch", "numpy", "pandas", "pytorch-lightning"])
