"""The commands that take a run's folder or a log: what `recsys` does after `train`."""

from __future__ import annotations

import json
import os
import socket
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import OmegaConf
from rich.progress import track

from recsys.cli.compose import compose, merge, values
from recsys.cli.quick import check_output, write_table
from recsys.data.sources.table import typed_table
from recsys.devices import device_of, running_on
from recsys.errors import ConfigError, RunError
from recsys.evaluation import statistics
from recsys.evaluation.ranking import Evaluation, Protocol
from recsys.files import held, write_parquet, write_pieces, write_text
from recsys.log.event_log import ITEM, USER, EventLog
from recsys.ranges import Number
from recsys.reading import read_config, read_json, read_table, reading
from recsys.report import runs_page, tables
from recsys.report.screen import WideTable, console, say, short, show, table_of
from recsys.run import ranking, synthesis
from recsys.run.alike import UNLIKE, check_alike, unlike_training
from recsys.run.calibrating import calibrate_run, table_of_figures
from recsys.run.config import flat
from recsys.run.folder import about
from recsys.run.forecasting import compare_forecasts
from recsys.run.log import filtered_log, log_of, read
from recsys.run.options import check_options
from recsys.run.prediction import compare_tables
from recsys.run.refitting import refit_run
from recsys.run.retention import Backbone, Retention, measure
from recsys.run.return_times import return_times_as_of
from recsys.run.task_kinds import check_command, folder_with_config, kind_of_run
from recsys.scoring import profiles, saved_model, trust
from recsys.scoring.ids import UnknownIdWarning
from recsys.scoring.kinds import profile_encoder
from recsys.scoring.other_logs import check_catalogue, known_parts
from recsys.scoring.portable import portable, write_onnx
from recsys.scoring.reranking import MMR, Reranking
from recsys.scoring.rules import AtLeast, AtMost, Boost
from recsys.scoring.trained_model import LISTS_AT_ONCE, SavedModel, asking
from recsys.tasks.as_of import AS_OF

SHOWN_USERS = 20
"""How many rows of a table of all users are printed."""


def evaluate(given: Namespace) -> None:
    """Evaluate a run's model again, with other list lengths, another mask rule or another log."""
    check_command(given.run, "evaluate")
    config = _config(given.run, given.overrides)
    protocol = _check(given.run, config)
    saved = _saved(given, config["device"])
    with reading(given.run / "config.yaml"):
        log = filtered_log(config["data"], config["task"]["filters"], "data")
        split = trust.build(config["task"]["split"], "split")(log)
        task = ranking.task_of(split, protocol, config["retrieval"], "index")
    task = task.with_report(config["report"])
    results = _evaluations(saved, task)
    of_log = about(split.log)
    different = unlike_training(given.run, config["task"], of_log)
    if given.output is not None:
        of_log |= {UNLIKE: different} if different else {}
        write_text(given.output / "log.json", json.dumps(of_log, indent=2))
        write_text(given.output / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
        ranking.write_results(given.output, results, task)
    label = f"{given.run} (test)"
    tests = {label: results["test"]}
    show(tables.metrics(tests, split.log.name, task.protocol))
    for table in ranking.tables_besides(tests, task):
        show(table)
    _warn(different)


def _warn(different: str | None, run: str = "") -> None:
    """Say that a model was evaluated otherwise than it was trained, if it was."""
    if different:
        say(f"{run}{different}: the model may have learnt from what it is evaluated on here")


def _evaluations(saved: SavedModel, task: ranking.Task) -> dict[str, Evaluation]:
    """Evaluations of the validation and the test users, who keep the indices of the task's log."""
    results = {}
    for part, known in known_parts(saved, task.split):
        with asking(saved.model):
            result = ranking.evaluate_part(saved.model, known, task)
        user = pl.Series("user", part.last_of_users().history.users.numpy())
        results[part.name] = replace(result, per_user=result.per_user.with_columns(user))
    return results


def recommend(given: Namespace) -> None:
    """Print or write lists for users of the log, or for one history."""
    check_output(given.output)
    if given.all_users and (given.output is None or given.output.suffix != ".parquet"):
        raise ConfigError("--all-users writes a file; give --output FILE.parquet")
    check_command(given.run, "recommend")
    saved = _saved(given)
    with _warned():
        options = {"k": given.k, "unknown": given.unknown, **_filters(given)}
        options["rerank"] = list(_rerankings(given))
        if given.all_users and (given.basket or given.probability):
            raise ConfigError("--basket and --probability are for --users and --history")
        if given.basket and given.probability:
            raise ConfigError("--probability is of whole baskets; ask without --basket")
        if given.all_users:
            pieces = saved.recommend_all(**options)
            write_pieces(given.output, _shown(pieces, saved))
            say(f"{given.output}: lists of {len(saved.users):,} users")
            return
        options |= {"probability": given.probability, "basket": _file_or_ids(given, "basket")}
        if given.users:
            lists = saved.recommend(given.users, progress=console.is_terminal, **options)
        else:
            baskets = [entry.split(",") for entry in given.history]
            lists = saved.recommend(histories=[baskets], **options)
    _show_or_write(lists, given.output)


def _rerankings(given: Namespace) -> Iterator[Reranking]:
    """What is done with lists: boosts, diversity, quotas, and last what is at most of a kind."""
    for text in given.boost:
        yield Boost(*_by_value("--boost", text, float, "brand=ours:0.2"))
    if given.diversity is not None:
        yield MMR(given.diversity, given.by)
    elif given.by is not None:
        raise ConfigError(f"--by {given.by} is for --diversity; give both")
    for text in given.at_least:
        yield AtLeast(*_by_value("--at-least", text, int, "brand=ours:3"))
    for text in given.at_most:
        column, equals, count = text.rpartition("=")
        if not equals or not column or not count.isdecimal():
            raise ConfigError(f"--at-most {text}: expected COLUMN=COUNT, such as category=2")
        yield AtMost(int(count), column)


def _by_value(
    option: str, text: str, number: Callable[[str], Number], example: str
) -> tuple[Any, str, str]:
    """The number, the column and the value of `COLUMN=VALUE:NUMBER`."""
    column, _, rest = text.partition("=")
    value, colon, count = rest.rpartition(":")
    try:
        if not (column and value and colon):
            raise ValueError
        return number(count), column, value
    except ValueError:
        raise ConfigError(
            f"{option} {text}: expected COLUMN=VALUE:NUMBER, such as {example}"
        ) from None


def similar(given: Namespace) -> None:
    """Print or write the items like each of some items."""
    check_output(given.output)
    check_command(given.run, "similar")
    saved = _saved(given)
    with _warned():
        lists = saved.similar(given.items, given.k, unknown=given.unknown, **_filters(given))
    _show_or_write(lists, given.output)


def score(given: Namespace) -> None:
    """Print or write the rows of a table with the model's score of each user and item."""
    check_output(given.output)
    check_command(given.run, "score")
    pairs = typed_table(str(given.pairs))
    saved = _saved(given)
    with _warned():
        scored = saved.score(pairs, unknown=given.unknown, probability=given.probability)
    _show_or_write(scored, given.output)


def explain(given: Namespace) -> None:
    """Print or write what brought items to users."""
    check_output(given.output)
    check_command(given.run, "explain")
    if given.pairs is not None and given.items:
        raise ConfigError("--items goes with --users; --pairs names items of its own")
    pairs = None if given.pairs is None else typed_table(str(given.pairs))
    saved = _saved(given)
    with _warned():
        if pairs is None and given.items is None:
            pairs = saved.recommend(given.users, k=given.k, unknown=given.unknown)
        elif pairs is None:
            users, items = pl.DataFrame({USER: given.users}), pl.DataFrame({ITEM: given.items})
            pairs = users.join(items, how="cross")
        parts = saved.explain(pairs, parts=given.parts, unknown=given.unknown)
    _show_or_write(parts, given.output)


def refit(given: Namespace) -> None:
    """Fit a run's model on the whole log, and save it beside the run."""
    check_command(given.run, "refit")
    output = given.output or given.run / "refit"
    _check_inside(given.run, output, given.output)
    if (output / "config.yaml").exists():
        raise RunError(f"{output} holds a run; name another folder")
    config = _config(given.run, [])
    protocol = _check(given.run, config)
    device = given.device or config["device"]
    with reading(given.run / "config.yaml"), held(output), running_on(device):
        log = filtered_log(config["data"], config["task"]["filters"], "data")
        split = trust.build(config["task"]["split"], "split")(log)
        if different := unlike_training(given.run, config["task"], about(split.log)):
            raise RunError(f"{different}: train on the log as it is now, and refit that run")
        refit_run(given.run, config, split, protocol, output, given.trusted)
    say(f"{output}: a model of all {split.log.num_events:,} events; recsys recommend {output}")


def calibrate(given: Namespace) -> None:
    """Make the scores of a run's models probabilities, and judge them on the test users."""
    check_command(given.run, "calibrate")
    config = _config(given.run, [])
    protocol = _check(given.run, config)
    device = given.device or config["device"]
    with reading(given.run / "config.yaml"), held(given.run), running_on(device):
        log = filtered_log(config["data"], config["task"]["filters"], "data")
        split = trust.build(config["task"]["split"], "split")(log)
        if different := unlike_training(given.run, config["task"], about(split.log)):
            raise RunError(f"{different}: train on the log as it is now, and calibrate that run")
        task = ranking.task_of(split, protocol, config["retrieval"], "index")
        whole = calibrate_run(given.run, config, task, given.trusted, device)
    show(table_of(table_of_figures(whole), title=f"{log.name} (test)", kind=WideTable))
    sizes = ", ".join(f"{short(error)} by the {guess}" for guess, error in whole["sizes"].items())
    if sizes:
        say(f"size_error of guesses: {sizes}")
    say(f"{given.run}: calibrated; recsys recommend {given.run} --users ID --probability")


def _saved(given: Namespace, default: str = "auto") -> SavedModel:
    """The model of the run that a command names, on the device and from the packages it names."""
    device = given.device or default
    return saved_model.load(given.run, device=device, trusted=given.trusted)


def _filters(given: Namespace) -> dict[str, Any]:
    """`allow` and `deny`: ids, or the table in a file."""
    return {name: _file_or_ids(given, name) for name in ("allow", "deny")}


def _file_or_ids(given: Namespace, name: str) -> Any:
    """Ids of an option, or the table in a file that it names."""
    ids = vars(given)[name]
    if ids and Path(ids[0]).suffix in (".csv", ".parquet"):
        if len(ids) > 1:
            raise ConfigError(f"--{name} {' '.join(ids)}: give ids, or one file")
        return typed_table(ids[0])
    return ids


@contextmanager
def _warned() -> Iterator[None]:
    """Ids that are not known are said in a line."""
    shown = warnings.showwarning

    def show_warning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, UnknownIdWarning):
            say(str(message))
        else:
            shown(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UnknownIdWarning)
        warnings.showwarning = show_warning
        yield


def _shown(pieces: Iterable[pl.DataFrame], saved: SavedModel) -> Iterable[pl.DataFrame]:
    total = -(-len(saved.users) // LISTS_AT_ONCE)
    quiet = not console.is_terminal
    return track(pieces, "users", total, console=console, disable=quiet, transient=True)


def _show_or_write(lists: pl.DataFrame, output: Path | None) -> None:
    if output is None:
        show(table_of(lists))
    else:
        write_table(output, lists)


def _check_inside(run: Path, place: Path, chosen: Path | None) -> None:
    """Refuse to write where a folder's links lead, unless the user has chosen the place."""
    if chosen is None and not place.resolve().is_relative_to(run.resolve()):
        raise RunError(f"{place} is a link that leads out of {run}; give --output")


def vectors(given: Namespace) -> None:
    """Write a model's vectors of all items and users as Parquet."""
    check_command(given.run, "vectors")
    tables_of = _saved(given).vectors()
    given.output.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(("items", "users"), tables_of, strict=True):
        path = given.output / f"{name}.parquet"
        write_parquet(path, frame)
        say(f"{path}: {len(frame):,} vectors")


def export(given: Namespace) -> None:
    """Write a model's scores as ONNX."""
    if given.output.suffix != ".onnx":
        raise ConfigError(f"{given.output}: give a .onnx file")
    check_command(given.run, "export")
    model = portable(_saved(given, "cpu").model)
    with asking(model):
        write_onnx(given.output, model)
    say(
        f"{given.output}: the scores of {type(model).__name__}; {given.run}/model/items.parquet "
        "has the items in their order"
    )


def profile(given: Namespace) -> None:
    """Write the vectors of all users of a log as of a moment, as Parquet."""
    if given.output is not None and given.output.suffix != ".parquet":
        raise ConfigError(f"--output {given.output}: give a .parquet file")
    check_command(given.run, "profile")
    moments = [o.partition("=")[2] for o in given.overrides if o.startswith("as_of=")]
    overrides = [o for o in given.overrides if not o.startswith("as_of=")]
    is_other = any(o.startswith("data=") for o in overrides)
    if is_other:
        whole = compose(overrides)
        log, device = read(whole.data), whole.device
    else:
        config = _config(given.run, overrides)
        log, device = _log(given.run, config), config["device"]
    rows = profiles.everyone(log, moments[-1] if moments else None)
    with running_on(given.device or device):
        model = profile_encoder(saved_model.load(given.run, trusted=given.trusted).model)
        with asking(model):
            vectors = profiles.profiles(model, log, rows, progress=console.is_terminal)
    table = rows.with_columns(pl.Series(profiles.VECTOR, vectors.numpy()))
    name = "_".join([log.name, *moments[-1:]])
    output = given.output or given.run / "profiles" / f"{name}.parquet"
    _check_inside(given.run, output, given.output)
    write_parquet(output, table)
    say(f"{output}: {len(table):,} users of {log.name} as of {table[AS_OF][0]}")


def return_times(given: Namespace) -> None:
    """Print or write when every user will be back, by a run's model, which is fitted again."""
    check_output(given.output)
    check_command(given.run, "return-times")
    config = _config(given.run, [])
    with reading(given.run / "config.yaml"), running_on(given.device or config["device"]):
        log, table = return_times_as_of(config, given.as_of)
    if given.output is not None:
        write_table(given.output, table)
        say(f"{given.output}: {len(table):,} users of {log.name} as of {table[AS_OF][0]}")
    else:
        show(table_of(table.head(SHOWN_USERS), title=f"{log.name}, {len(table):,} users"))


def retention(given: Namespace) -> None:
    """Print what a run's language model forgot while it learnt to recommend."""
    check_command(given.run, "retention")
    check_output(given.output)
    options = _retention(given.overrides)
    backbone = Backbone.of_run(given.run, options.before)
    table = measure(backbone, options, device_of(given.device or "auto"))
    if given.output is not None:
        write_table(given.output, table)
        say(f"{given.output}: {len(table):,} rows")
    else:
        title = f"{given.run} - {backbone.before or 'nothing'}, share of right answers"
        show(table_of(table, title=title))
    if backbone.before is None:
        say(
            f"{given.run} started at random, from no language model: it has nothing to forget, and "
            "what it answers means nothing"
        )


def _retention(overrides: list[str]) -> Retention:
    config = OmegaConf.create({f.name: None for f in fields(Retention)})
    merge(config, overrides)
    given = {name: value for name, value in values(config).items() if value is not None}
    call = {"_target_": "recsys.run.retention.Retention", **given}
    check_options({"retention": call}, {})
    return Retention(**given)


def synthesise(given: Namespace) -> None:
    """Write a log of drawn users beside a run, and print what is checked of it."""
    check_command(given.run, "synthesise")
    options = synthesis.Synthesis(given.users, given.column, given.seed)
    output = given.output or given.run / "synthetic"
    _check_inside(given.run, output, given.output)
    synthesis.check_place(output)
    config = _config(given.run, [])
    protocol = _check(given.run, config)
    saved = _saved(given, config["device"])
    model = synthesis.generative(saved.model)
    with reading(given.run / "config.yaml"):
        log = filtered_log(config["data"], config["task"]["filters"], "data")
        split = trust.build(config["task"]["split"], "split")(log)
    check_catalogue(saved, split)
    with asking(model):
        drawn = synthesis.synthetic_log(model, split, options)
    classes = synthesis.class_table(split, drawn, options.column)
    found = synthesis.checks(split, drawn, options, protocol)
    synthesis.write(output, drawn, found, classes)
    show(table_of(synthesis.summary(found), title=drawn.name))
    show(table_of(classes.head(SHOWN_USERS), title="shares of events"))
    say(f"{output}: {found['events']:,} events of {found['users']:,} users")


def compare(given: Namespace) -> None:
    """Print the paired differences of two runs, metric by metric, or write a page of several."""
    if given.html is not None:
        _compare_on_page(given.html, [given.first, given.second, *given.more], given.part)
        return
    if given.more:
        raise ConfigError(
            f"{given.more[0]}: two runs are compared in a table; --html FILE.html compares more"
        )
    check_alike(given.first, given.second)
    of_tables = all((run / "tables").is_dir() for run in (given.first, given.second))
    of_series = all((run / "per_series.parquet").is_file() for run in (given.first, given.second))
    with reading(given.second, fault="cannot be compared"):
        if of_series:
            table = compare_forecasts(given.first, given.second)
        elif of_tables:
            table = compare_tables(given.first, given.second)
        else:
            first, second = (_per_user(run, given.part) for run in (given.first, given.second))
            names = tables.main_metrics(first, second) if not given.all else None
            table = statistics.compare(first, second, names=names)
    rows = "folds" if of_tables else "test" if of_series else given.part
    show(table_of(_compared(table), title=f"{given.second} - {given.first} ({rows})"))
    say(*_about_comparison(table, "folds" if of_tables else "series" if of_series else "users"))
    for run in (given.first, given.second):
        if (run / "log.json").is_file():
            _warn(read_json(run / "log.json").get(UNLIKE), f"{run}: ")


def _compare_on_page(path: Path, runs: list[Path], part: str) -> None:
    """Write a page of runs that rank items, side by side."""
    if path.suffix != ".html" or part != "test":
        raise ConfigError(
            f"--html {path} --part {part}: give a .html file; it is of the test users"
        )
    if len({run.resolve() for run in runs}) < len(runs):
        raise ConfigError(f"{' '.join(map(str, runs))}: give each run once")
    for run in runs:
        kind = kind_of_run(run)
        if kind is not None and "evaluate" not in kind.commands:
            raise RunError(
                f"{run} {kind.does}, and --html compares runs that rank items; recsys compare RUN "
                "RUN compares two such runs"
            )
        check_alike(runs[0], run)
    with reading(runs[-1], fault="cannot be compared"):
        common = os.path.commonpath([run.resolve().parent for run in runs])
        names = [str(run.resolve().relative_to(common)) for run in runs]
        configs = [dict(flat(_options_of(run))) for run in runs]
        shown = list(map(runs_page.Shown, names, runs, configs))
        best = runs_page.write(path, shown)
    say(f"{path}: {len(runs)} runs, each minus {best}")


def _options_of(run: Path) -> dict[str, Any]:
    """The config of a run; that of a baseline has the baseline as its model."""
    place = folder_with_config(run)
    config = read_config(place) if place is not None else {}
    baselines = config.pop("baselines", None) or {}
    if run.parent.name == "baselines" and run.name in baselines:
        config["model"] = baselines[run.name]
    return config


def _compared(table: pl.DataFrame) -> pl.DataFrame:
    """What is printed of a comparison: what is detectable after the correction, as the p-value."""
    kept = table.drop("pairs", "detectable", "detectable_holm")
    return kept.with_columns(table["detectable_holm"].alias("detectable"))


def _about_comparison(table: pl.DataFrame, of: str) -> Iterator[str]:
    """How to read the column `detectable`, where there is a test."""
    tests = table["p_value"].count()
    if tests:
        fewest, *_, most = sorted(table["pairs"].to_list() * 2)
        count = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
        level = f"5% after Holm's correction over {tests}" if tests > 1 else "5%"
        yield (
            f"detectable: the smallest true difference that a paired test of {count} {of} finds "
            f"with 80% power at {level}; a smaller one can be there and not be seen"
        )


def _config(run: Path, overrides: list[str]) -> dict[str, Any]:
    """A run's config with the overrides, as dicts, lists and values that stand for themselves."""
    if not (run / "config.yaml").is_file():
        raise RunError(f"{run} is no run's folder: it has no config.yaml{_where_instead(run)}")
    # It may have been trained elsewhere, and before a report had all of its options.
    known = read_config(run)
    report = {"beyond": None, "slices": None} | (known.get("report") or {})
    config = OmegaConf.create(known | {"device": "auto", "report": report})
    OmegaConf.set_struct(config, True)
    merge(config, overrides)
    return values(config)


def _where_instead(run: Path) -> str:
    """What there is to do with a folder that has no config."""
    if whole := folder_with_config(run):
        return f"; it belongs to the run in {whole}, name that"
    if not (run / "model").is_dir():
        return ""
    if (run.parent / "config.yaml").is_file():
        return (
            f"; its model has learnt from the whole log, which leaves nobody to evaluate it on: "
            f"name the run that it was refitted from, {run.parent}"
        )
    return "; it holds a model alone, which recsys recommend, similar, score and explain take"


def _check(run: Path, config: Mapping[str, Any]) -> Protocol:
    """Refuse a config that calls what it may not, before anything of it is called.

    Returns:
        How lists are evaluated.
    """
    with reading(run / "config.yaml"):
        trust.check(config["data"], "data")
        trust.check(config["task"]["split"], "split")
        trust.check(config["retrieval"]["index"], "index")
        names = [name.split(".")[1] for name in ranking.OF_A_TASK if name.startswith("task.")]
        task = {name: config["task"][name] for name in names}
        sections = {name: config[name] for name in ("data", "retrieval", "report")}
        check_options(sections | {"task": task}, ranking.OF_A_TASK | ranking.OF_A_REPORT)
        return ranking.protocol_of(task)


def _log(run: Path, config: Mapping[str, Any]) -> EventLog:
    with reading(run / "config.yaml"):
        trust.check(config["data"], "data")
        check_options({"data": config["data"]}, {"data": EventLog})
        return log_of(config["data"], "data")


def _per_user(run: Path, part: str) -> pl.DataFrame:
    frame = read_table(run / "per_user.parquet", "part", "user_id")
    with reading(run / "per_user.parquet"):
        frame = frame.filter(pl.col("part") == part).drop("part")
        if frame["user_id"].is_duplicated().any():
            raise ValueError("a user twice")
    if not len(frame):
        raise RunError(f"{run} has no users of the part {part}; compare another")
    return frame


def serve(given: Namespace) -> None:
    """Answer requests over HTTP until it is stopped."""
    try:
        import uvicorn

        from recsys.serving import app  # starlette comes with it
    except ImportError as error:
        raise ConfigError(
            f"recsys serve needs the package {error.name}; pip install 'recsys[serve]'"
        ) from error
    if not 0 <= given.port < 2**16:
        raise ConfigError(f"--port {given.port}: expected at most 65535")
    check_command(given.run, "recommend")
    saved = saved_model.load(given.run, device=given.device or "auto", trusted=given.trusted)
    service = app(saved)
    _check_free(given.host, given.port)
    say(f"{given.run}: http://{given.host}:{given.port}/recommend, /similar and /health")
    uvicorn.run(service, host=given.host, port=given.port, log_level="warning", access_log=False)


def _check_free(host: str, port: int) -> None:
    """Refuse an address that cannot be had, before one is named."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: {error.strerror or error}; choose another port"
        ) from error
