"""What a peer did when it was tried, row by row of `docs/peers.md`.

Each script beside this file runs in an environment of its own, never in that of `recsys`, and
writes its outcomes to `results/PEER.json`. A row is a function that does the thing and returns
what came of it; one that ends in an error is a thing that the peer did not do. What a peer has
nothing for is looked for in its package by words, and what was looked for is written down.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import platform
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

ROWS: dict[str, Callable[[], str]] = {}

WORDS = {
    "guess what a file's columns are": r"\b(guess|infer|sniff)_?(columns|file|dialect|schema)",
    "next baskets as such": r"\bbaskets?\b",
    "intervals of means": r"bootstrap|confidence.?interval",
    "paired tests, corrected for their number": (
        r"wilcoxon|ttest_(rel|ind|1samp)|\bholm\b|bonferroni"
    ),
    "the smallest difference that a test finds": (
        r"minimum.detectable|statistical.power|effect.size"
    ),
    "metrics by groups of users": r"\b(user_?groups?|slices?_by|subgroups?|demographic)\b",
    "a page of results": r"plotly|matplotlib|to_html|html_report",
    "an application that shows lists of models side by side": r"streamlit|gradio|VisualApp",
    "what is known of items and users in a ranking model": r"\b(user|item)_features\b",
    "a language model of a log's words": r"language.?model|AutoModelForCausalLM|AutoTokenizer",
    "vectors of texts in a model": r"text.?embed|sentence.?transformers|pretrained.?item",
    "labels of users as of a moment": r"churn|as.of.(moment|date)|\buser.?labels?\b",
    "when a user is back": r"\bsurvival|\bhazard|censor",
    "what is sold in the days ahead": r"forecast",
    "lists with less of the same": r"\bmmr\b|maximal.marginal|rerank_divers|diversif",
    "answers over HTTP": r"fastapi|starlette|flask|uvicorn|http\.server|wsgi",
    "explanations of a list": r"def explain|explainer|explainab",
    "an approximate index": r"faiss|nmslib|hnsw|annoy|scann",
    "logs larger than memory": r"pyspark|out.of.core|scan_parquet|iter_batches|dask",
    "settings, searched": r"optuna|hyperopt|ray\.tune|grid.?search|random.?search",
    "knowledge graphs": r"knowledge.?graph|\bkg\b",
    "ratings and clicks": r"\brmse\b|click.through|\bctr\b",
    "two stages: candidates, then trees": r"lightgbm|catboost|xgboost|two.?stage",
    "models that go on from what was taken up or not": r"\bdpo\b|\bkto\b|preference.optimi",
    "federated training": r"federated|fedavg",
    "several domains of one log": r"cross.?domain|source.?domain",
    "files for other run-times": r"onnx|openvino|torchscript|jit\.(script|trace)\(",
    "a contract for a model of one's own": r"class \w+(Tests?|Contract)\b.*:",
}
"""What would stand in the source of a package that does what the row says."""


class AbsentError(Exception):
    """The peer has nothing that does this; the message says what was looked for."""


class FoundError(Exception):
    """Words that were looked for are there: what they mean is to be read."""


def row(title: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """A decorator: the function tries what the row with this title says."""

    def register(trial: Callable[[], str]) -> Callable[[], str]:
        ROWS[title] = trial
        return trial

    return register


def nothing(title: str, what: str) -> None:
    """A row that the peer has nothing for, as its source was read to say."""

    def trial() -> str:
        raise AbsentError(what)

    ROWS[title] = trial


def words_are_absent(package: str, *titles: str) -> None:
    """Rows of whose words, by `WORDS`, no file of the package has any."""
    for title in titles:
        ROWS[title] = lambda title=title: _look_for(package, WORDS[title])


def _look_for(package: str, pattern: str) -> str:
    (folder,) = importlib.util.find_spec(package).submodule_search_locations
    for path in sorted(Path(folder).rglob("*.py")):
        match = re.search(pattern, path.read_text(errors="replace"), re.IGNORECASE)
        if match is not None:
            raise FoundError(f"{match[0]!r} stands in {path.relative_to(folder)}: look at it")
    raise AbsentError(f"no file of the package has {pattern}")


def main(peer: str, packages: list[str]) -> None:
    """Try every row, print it, and write `results/PEER.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=[], help="words of titles: these rows again")
    only = parser.parse_args().only
    path = Path(__file__).parent / "results" / f"{peer}.json"
    outcomes = json.loads(path.read_text())["outcomes"] if only else {}
    for title, trial in ROWS.items():
        if only and not any(words in title for words in only):
            continue
        try:
            outcomes[title] = _tried(trial)
        except FoundError as error:  # no outcome before somebody has read it
            print("???", title, "|", error)
            continue
        print("yes" if outcomes[title]["yes"] else "no ", title, "|", outcomes[title]["what"])
    record = {
        "peer": peer,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "outcomes": {title: outcomes[title] for title in ROWS if title in outcomes},
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _tried(trial: Callable[[], str]) -> dict[str, object]:
    try:
        return {"yes": True, "what": trial()}
    except FoundError:
        raise
    except AbsentError as error:
        return {"yes": False, "what": str(error)}
    except Exception as error:  # what a peer cannot do ends in any error
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return {"yes": False, "what": line.replace(tempfile.gettempdir(), "…")[:240]}
