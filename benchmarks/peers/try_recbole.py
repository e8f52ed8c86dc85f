"""Try RecBole, row by row of `docs/peers.md`; write `results/recbole.json`.

    python3.11 -m venv recbole_env
    recbole_env/bin/pip install recbole==1.2.1 torch==2.13.0
    recbole_env/bin/pip install 'setuptools<81' numpy==1.26.4 pandas==2.1.4 hyperopt==0.2.5
    RECSYS_DATA=FOLDER recbole_env/bin/python benchmarks/peers/try_recbole.py

The folder holds `ml-100k/ml-100k.inter`. Without the second line the package is not imported: see
the row of plain installations.
"""

import inspect
import os
import tempfile
import warnings
from functools import cache, partial
from pathlib import Path

import torch

warnings.simplefilter("ignore")
LOGS = os.environ["RECSYS_DATA"]
FOLDER = tempfile.mkdtemp()
os.chdir(FOLDER)  # it writes beside where one stands

from outcomes import AbsentError, main, nothing, row, words_are_absent  # noqa: E402
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.quick_start import load_data_and_model, run_recbole  # noqa: E402
from recbole.utils import get_model, get_trainer, init_logger, init_seed  # noqa: E402

LAST = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
PLAIN = {"data_path": LOGS, "use_gpu": False, "show_progress": False, "epochs": 1, "state": "ERROR"}
SMALL = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1, "MAX_ITEM_LIST_LENGTH": 5}


@cache
def fitted(name: str = "EASE") -> tuple:
    """A model with its data; as `run_recbole` does it."""
    small = SMALL | {"train_neg_sample_args": None} if name == "SASRec" else {}
    options = PLAIN | {"eval_args": LAST} | small
    config = Config(model=name, dataset="ml-100k", config_dict=options)
    init_seed(config["seed"], True)
    init_logger(config)
    data = create_dataset(config)
    parts = data_preparation(config, data)
    model = get_model(name)(config, parts[0].dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    trainer.fit(parts[0], parts[1], saved=True, show_progress=False)
    return config, data, parts, model, trainer


def results(name: str, **options: object) -> dict:
    """Of `run_recbole` without a checkpoint: it does not open its own with torch 2.6 or later."""
    settings = PLAIN | {"eval_args": LAST} | options
    return run_recbole(name, "ml-100k", config_dict=settings, saved=False)


nothing(
    "works after a plain `pip install`",
    "pip chose numpy 2.4.6, pandas 3.1.1, ray 2.6.3: `No module named 'pkg_resources'`; with "
    "setuptools<81: `module 'numpy' has no attribute 'bool8'`",
)


nothing("a pandas frame", "logs are atomic files; Dataset reads no frame that one has in memory")
nothing("a polars frame", "as a pandas frame")
nothing("explanations of a list", "the word stands in titles of papers alone")
nothing(
    "two stages: candidates, then trees",
    "XGBoost and LightGBM predict clicks; nothing ranks the candidates of another model",
)
nothing("vectors of texts in a model", "LINE has the letters in a name; texts are not read")
nothing("next baskets as such", "the word stands in the docstring of FPMC alone, which ranks items")


@row("any table by the names of its columns, without code")
def table() -> str:
    folder = Path(FOLDER) / "shop"
    folder.mkdir(exist_ok=True)
    (folder / "shop.inter").write_text("customer;sku;day\n1;2;3\n")
    options = PLAIN | {"data_path": FOLDER, "field_separator": ";", "USER_ID_FIELD": "customer"}
    return str(create_dataset(Config("Pop", "shop", config_dict=options)))


@row("published logs by name")
def published() -> str:
    import recbole

    urls = Path(recbole.__file__).parent / "properties/dataset/url.yaml"
    count = sum(":" in line and "http" in line for line in urls.read_text().splitlines())
    return f"url.yaml names {count} files; downloads were not tried"


@row("the next item")
def next_item() -> str:
    return f"LS: valid_and_test, Recall@10 of EASE {results('EASE')['test_result']['recall@10']}"


@row("a split at a moment")
def moment() -> str:
    split = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "none", "mode": "full"}
    found = results("Pop", eval_args=split)["test_result"]["recall@10"]
    return f"RS in order of time without groups: Recall@10 {found}"


nothing("several windows of time in one call", "eval_args has one split")


@row("users that training has not seen")
def unseen() -> str:
    raise AbsentError(
        "eval_args divides the events of each user, or all events; users have no part"
    )


@row("ratings and clicks")
def ratings() -> str:
    options = {"threshold": {"rating": 4}, "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC"}
    labelled = LAST | {"split": {"RS": [0.8, 0.1, 0.1]}, "mode": "labeled"}
    found = results("LR", eval_args=labelled, train_neg_sample_args=None, **options)["test_result"]
    return f"LR, one epoch: {dict(found)}"


@row("every item of the catalogue is a candidate by default")
def full() -> str:
    mode = Config("EASE", "ml-100k", config_dict=PLAIN)["eval_args"]["mode"]
    return f"eval_args.mode by default: {mode}"


@row("whether a history stays in the lists is an option")
def mask() -> str:
    found = [results("EASE", repeatable=kept)["test_result"]["recall@10"] for kept in (False, True)]
    if found[0] == found[1]:
        raise AbsentError(f"repeatable changes nothing for EASE: Recall@10 {found}")
    return f"repeatable: Recall@10 {found}"


@row("metrics of each user")
def per_user() -> str:
    evaluator = fitted()[4].evaluator.evaluate
    raise AbsentError(f"{evaluator.__qualname__} gives means; topk_result returns them rounded")


@row("diversity, novelty, serendipity")
def beyond() -> str:
    found = {}
    for name in ("ItemCoverage", "AveragePopularity", "GiniIndex", "ShannonEntropy"):
        try:
            found |= dict(results("EASE", metrics=[name, "MRR"])["test_result"])
        except AttributeError as error:
            found[name] = str(error)
    if all(isinstance(value, str) for value in found.values()):
        raise AbsentError(str(found))
    return f"{found}"


nothing("how much the lists of models overlap, and how many are too short", "no such metric")


@row("models that rank a catalogue")
def models() -> str:
    import recbole.model as module

    folder = Path(module.__file__).parent
    kinds = ("general", "sequential", "context_aware", "knowledge_aware")
    counts = {
        kind: len([p for p in (folder / f"{kind}_recommender").glob("*.py") if p.stem[0] != "_"])
        for kind in kinds
    }
    return f"files of models by kind: {counts}"


@row("several models in one table")
def several() -> str:
    raise AbsentError(
        "run_recbole trains one; run_example/compare files are in its repository only"
    )


@row("what is known of items and users in a ranking model")
def features() -> str:
    load = {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "class"]}
    ranked = {"metrics": ["Recall"], "valid_metric": "Recall@10"}
    found = results("FM", embedding_size=4, load_col=load, **ranked)["test_result"]["recall@10"]
    return f"FM with the items' class, one epoch: Recall@10 {found}"


@row("knowledge graphs")
def graphs() -> str:
    from recbole.model import knowledge_aware_recommender as module

    names = [name for name, _ in inspect.getmembers(module, inspect.isclass)]
    return f"{len(names)} models: {', '.join(names)[:120]}; none was trained here"


@row("settings, searched")
def searched() -> str:
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    space = Path(FOLDER) / "space.txt"
    space.write_text("reg_weight choice [100.0,250.0]\n")
    fixed = Path(FOLDER) / "fixed.yaml"
    fixed.write_text(
        f"model: EASE\ndataset: ml-100k\ndata_path: {LOGS}\nuse_gpu: False\nshow_progress: False\n"
    )
    objective = partial(objective_function, saved=False)
    files = {"params_file": str(space), "fixed_config_file_list": [str(fixed)]}
    tuning = HyperTuning(objective, algo="exhaustive", **files)
    tuning.run()
    return f"HyperTuning, exhaustive: {tuning.best_params}"


@row("only some items may be recommended")
def allowed() -> str:
    from recbole.utils.case_study import full_sort_topk

    names = list(inspect.signature(full_sort_topk).parameters)
    raise AbsentError(f"full_sort_topk takes {names}")


@row("other items by user may be recommended")
def by_user() -> str:
    return allowed()


nothing("items like an item", "no function of the package ranks items for an item")


@row("an unknown user: an error, or left out, as one says")
def unknown() -> str:
    _, data, *_ = fitted()
    try:
        data.token2id("user_id", ["999999"])
    except ValueError as error:
        raise AbsentError(f"always an error: {error}") from error
    return "no error"


@row("a list for any history, without fitting again")
def history() -> str:
    from recbole.data.interaction import Interaction

    config, data, _, model, _ = fitted("SASRec")
    items = torch.zeros(1, config["MAX_ITEM_LIST_LENGTH"], dtype=torch.long)
    items[0, :3] = torch.tensor(data.token2id("item_id", ["50", "181", "172"]))
    asked = Interaction({"item_id_list": items, "item_length": torch.tensor([3])})
    best = model.full_sort_predict(asked).argmax().item()
    item = data.id2token("item_id", best)
    return f"SASRec.full_sort_predict of an Interaction that one builds: item {item}"


@row("a saved model that runs no code when it is opened")
def opened() -> str:
    path = fitted()[4].saved_model_file
    try:
        load_data_and_model(path)
        worked = "opens it"
    except Exception as error:
        worked = f"ends in {type(error).__name__}: {str(error)[:90]}"
    raise AbsentError(f"a checkpoint with a pickled Config; load_data_and_model {worked}")


@row("a run goes on after it was killed")
def resumed() -> str:
    from recbole.trainer import Trainer

    return f"{Trainer.resume_checkpoint.__qualname__} of the epochs' checkpoint; not run here"


@row("from a file to a table of results by one command")
def command() -> str:
    raise AbsentError("run_recbole.py stands in its repository; the package has no command")


words_are_absent(
    "recbole",
    "guess what a file's columns are",
    "intervals of means",
    "paired tests, corrected for their number",
    "the smallest difference that a test finds",
    "an application that shows lists of models side by side",
    "metrics by groups of users",
    "a language model of a log's words",
    "labels of users as of a moment",
    "when a user is back",
    "what is sold in the days ahead",
    "lists with less of the same",
    "answers over HTTP",
    "logs larger than memory",
    "models that go on from what was taken up or not",
    "federated training",
    "several domains of one log",
    "a contract for a model of one's own",
    "files for other run-times",
)

if __name__ == "__main__":
    main("recbole", ["recbole", "torch", "numpy", "pandas", "ray", "setuptools"])
