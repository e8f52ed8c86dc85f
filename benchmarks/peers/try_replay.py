"""Try RePlay, row by row of `docs/peers.md`; write `results/replay.json`.

    python3.11 -m venv replay_env
    replay_env/bin/pip install 'replay-rec[torch,spark]==0.22.0' torch==2.13.0 optuna hnswlib
    RECSYS_DATA=FOLDER replay_env/bin/python benchmarks/peers/try_replay.py

It needs Java (17 here). The folder holds RecBole's `ml-100k/ml-100k.inter`; Spark runs on this
machine alone.
"""

import importlib.util
import os
import tempfile
import warnings
from functools import cache
from pathlib import Path

import pandas as pd
import polars as pl
from outcomes import AbsentError, main, nothing, row, words_are_absent
from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureType
from replay.metrics import (
    NDCG,
    CategoricalDiversity,
    ConfidenceInterval,
    Coverage,
    Experiment,
    PerUser,
    Unexpectedness,
)
from replay.models import ItemKNN, PopRec, Word2VecRec
from replay.splitters import KFolds, LastNSplitter, NewUsersSplitter, TimeSplitter
from replay.utils.session_handler import State, get_spark_session

warnings.simplefilter("ignore")
NAMES = {"query_column": "user_id", "item_column": "item_id", "rating_column": "rating"}
SPLIT = {"query_column": "user_id", "item_column": "item_id", "timestamp_column": "timestamp"}


@cache
def events() -> pd.DataFrame:
    path = Path(os.environ["RECSYS_DATA"]) / "ml-100k/ml-100k.inter"
    names = ["user_id", "item_id", "rating", "timestamp"]
    return pd.read_csv(path, sep="\t", skiprows=1, names=names)


def schema() -> FeatureSchema:
    kinds, hints = FeatureType, FeatureHint
    return FeatureSchema(
        [
            FeatureInfo("user_id", kinds.CATEGORICAL, hints.QUERY_ID),
            FeatureInfo("item_id", kinds.CATEGORICAL, hints.ITEM_ID),
            FeatureInfo("rating", kinds.NUMERICAL, hints.RATING),
            FeatureInfo("timestamp", kinds.NUMERICAL, hints.TIMESTAMP),
        ]
    )


@cache
def spark() -> object:
    return State(get_spark_session(spark_memory=2, shuffle_partitions=2, core_count=1)).session


@cache
def dataset() -> Dataset:
    spark()
    encoded = events().assign(user_id=events()["user_id"] - 1, item_id=events()["item_id"] - 1)
    data = Dataset(schema(), encoded, categorical_encoded=True)
    data.to_spark()
    return data


@cache
def knn() -> ItemKNN:
    model = ItemKNN()
    model.fit(dataset())
    return model


@cache
def popular() -> PopRec:
    model = PopRec()
    model.fit(dataset())
    return model


@cache
def made(masked: bool) -> pd.DataFrame:
    return lists(filter_seen_items=masked, queries=list(range(10)))


def lists(**options: object) -> pd.DataFrame:
    """Lists of popular items: the machinery of Spark is that of any model."""
    asked = {"dataset": dataset(), "k": 5, "queries": [0, 1]} | options
    return popular().predict(**asked).toPandas()


@row("works after a plain `pip install`")
def installed() -> str:
    return "as the first lines of this file say"


@row("a pandas frame")
def pandas_frame() -> str:
    return f"Dataset: is_pandas {Dataset(schema(), events()).is_pandas}"


@row("a polars frame")
def polars_frame() -> str:
    return f"Dataset: is_polars {Dataset(schema(), pl.from_pandas(events())).is_polars}"


@row("any table by the names of its columns, without code")
def table() -> str:
    raise AbsentError("no command line: a Dataset with a FeatureSchema is built first")


@row("published logs by name")
def published() -> str:
    if importlib.util.find_spec("rs_datasets") is None:
        raise AbsentError("the package has no loader; its examples use the package rs_datasets")
    return "rs_datasets"


@row("logs larger than memory")
def large() -> str:
    return f"models of Spark frames, tried with Spark {spark().version} on one machine"


@row("the next item")
def next_item() -> str:
    _, test = LastNSplitter(1, divide_column="user_id", **SPLIT).split(events())
    return f"LastNSplitter(1): {len(test)} test rows"


@row("a split at a moment")
def moment() -> str:
    _, test = TimeSplitter(0.2, **SPLIT).split(events())
    return f"TimeSplitter(0.2): {len(test)} test rows"


@row("several windows of time in one call")
def windows() -> str:
    folds = list(KFolds(n_folds=2, **SPLIT).split(events()))
    raise AbsentError(f"KFolds gives {len(folds)} folds at random; TimeSplitter gives one")


@row("users that training has not seen")
def unseen() -> str:
    train, test = NewUsersSplitter(0.2, drop_cold_items=True, **SPLIT).split(events())
    return f"NewUsersSplitter(0.2): {len(set(test['user_id']) - set(train['user_id']))} new users"


@row("every item of the catalogue is a candidate by default")
def full() -> str:
    ranked = lists(k=5000, queries=[0], filter_seen_items=False)
    return f"predict ranks {len(ranked)} of {events()['item_id'].nunique()} items"


@row("whether a history stays in the lists is an option")
def mask() -> str:
    first = [made(masked).query("user_id == 0")["item_id"].tolist() for masked in (True, False)]
    return f"filter_seen_items: {first[0]} and {first[1]}"


def held() -> pd.DataFrame:
    encoded = events() - [1, 1, 0, 0]
    return encoded[encoded["user_id"] < 10]


@row("metrics of each user")
def per_user() -> str:
    return f"NDCG with mode=PerUser(): {NDCG(5, mode=PerUser(), **NAMES)(made(False), held())}"


@row("intervals of means")
def intervals() -> str:
    found = NDCG(5, mode=ConfidenceInterval(0.95), **NAMES)(made(False), held())
    return f"ConfidenceInterval(0.95), by the normal distribution: half-width {found}"


@row("diversity, novelty, serendipity")
def beyond() -> str:
    grouped = made(True).assign(category_id=made(True)["item_id"] % 3)
    diversity = CategoricalDiversity(5, query_column="user_id")(grouped)
    coverage = Coverage(5, **NAMES)(made(True), events())
    return f"{diversity}, {coverage}, {Unexpectedness(5, **NAMES)(made(True), made(False))}"


@row("how much the lists of models overlap, and how many are too short")
def quality() -> str:
    found = Unexpectedness(5, **NAMES)(made(True), made(False))
    return f"Unexpectedness, the share of items not in a base model's list: {found}"


@row("models that rank a catalogue")
def models() -> str:
    import replay.models as module
    from replay.models.nn.sequential.bert4rec import Bert4Rec
    from replay.nn.sequential import SasRec, TwoTower

    count = len(set(module.__all__) - {"Recommender"})
    networks = [network.__name__ for network in (Bert4Rec, SasRec, TwoTower)]
    return f"{count} of replay.models, and {', '.join(networks)}"


@row("several models in one table")
def several() -> str:
    experiment = Experiment([NDCG(5, **NAMES)], held(), **NAMES)
    experiment.add_result("popular", made(True))
    experiment.add_result("popular, history kept", made(False))
    return f"Experiment: {experiment.results.shape[0]} rows"


@row("settings, searched")
def searched() -> str:
    model = ItemKNN()
    found = model.optimize(dataset(), dataset(), budget=1, k=5)
    return f"ItemKNN.optimize(budget=1), by Optuna: {found}"


@row("only some items may be recommended")
def allowed() -> str:
    return f"items: {sorted(set(lists(items=[0, 1, 2, 3, 4, 5])['item_id']))}"


@row("other items by user may be recommended")
def by_user() -> str:
    pairs = pd.DataFrame({"user_id": [0, 1], "item_id": [5, 7]})
    scored = popular().predict_pairs(spark().createDataFrame(pairs), dataset(), k=5).toPandas()
    return f"predict_pairs(k=5): {scored[['user_id', 'item_id']].to_numpy().tolist()}"


@row("items like an item")
def similar() -> str:
    nearest = knn().get_nearest_items([0], 3, metric=None).toPandas()
    return f"get_nearest_items: {nearest.iloc[:, 1].tolist()}"


@row("an unknown user: an error, or left out, as one says")
def unknown() -> str:
    model = knn().predict(dataset(), 3, queries=[0, 5000]).toPandas()
    kept = model["user_id"].unique().tolist()
    raise AbsentError(f"left out with a line of the log, kept {kept}; there is no option")


@row("a saved model that runs no code when it is opened")
def opened() -> str:
    from replay.utils.model_handler import load, save

    with tempfile.TemporaryDirectory() as folder:
        save(popular(), f"{folder}/model", overwrite=True)
        name = type(load(f"{folder}/model")).__name__
        files = sorted({path.suffix for path in Path(folder).rglob("*") if path.is_file()})
    return f"{name} from JSON and Parquet ({', '.join(files)}); save_encoder writes a pickle"


@row("an approximate index")
def approximate() -> str:
    from replay.models.extensions.ann.entities.hnswlib_param import HnswlibParam
    from replay.models.extensions.ann.index_builders.driver_hnswlib_index_builder import (
        DriverHnswlibIndexBuilder,
    )
    from replay.models.extensions.ann.index_stores.shared_disk_index_store import (
        SharedDiskIndexStore,
    )

    with tempfile.TemporaryDirectory() as folder:
        store = SharedDiskIndexStore(warehouse_dir=folder, index_dir="index", cleanup=False)
        options = HnswlibParam(space="ip", m=16, ef_c=50, post=0)
        builder = DriverHnswlibIndexBuilder(index_params=options, index_store=store)
        model = Word2VecRec(rank=8, max_iter=1, index_builder=builder)
        model.fit(dataset())
        items = model.predict(dataset(), 3, queries=[0]).toPandas()["item_id"].tolist()
    return f"Word2VecRec with DriverHnswlibIndexBuilder: {items}"


@row("from a file to a table of results by one command")
def command() -> str:
    raise AbsentError("the package has no command")


@row("answers in place of a user that a model has nothing for")
def fallback() -> str:
    from replay.scenarios import Fallback

    model = Fallback(Word2VecRec(rank=8, max_iter=1), PopRec())
    model.fit(dataset())
    return f"Fallback: {model.predict(dataset(), 3, queries=[0]).count()} items"


nothing("a language model of a log's words", "the words name the way in which BERT is trained")
nothing("vectors of texts in a model", "the words are a formula; item features are ids and numbers")
nothing("what is sold in the days ahead", "the word stands in the title of a paper")
nothing(
    "two stages: candidates, then trees",
    "TwoStageSplitter divides the events; LightGBM is named as the source of a discretiser alone",
)
words_are_absent(
    "replay",
    "guess what a file's columns are",
    "next baskets as such",
    "paired tests, corrected for their number",
    "the smallest difference that a test finds",
    "metrics by groups of users",
    "a page of results",
    "an application that shows lists of models side by side",
    "labels of users as of a moment",
    "when a user is back",
    "lists with less of the same",
    "answers over HTTP",
    "explanations of a list",
    "knowledge graphs",
    "ratings and clicks",
    "models that go on from what was taken up or not",
    "federated training",
    "several domains of one log",
    "a contract for a model of one's own",
)

if __name__ == "__main__":
    main("replay", ["replay-rec", "torch", "numpy", "pandas", "polars", "pyspark", "lightning"])
