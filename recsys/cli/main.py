"""The command line. Torch and Hydra are imported by the command that needs them, not before."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from recsys import __version__
from recsys.cli import completion
from recsys.cli.help import described, of_command, overview
from recsys.cli.names import Parser, failed, names, nearest, of_the_system
from recsys.errors import ConfigError, RecsysError

VERBOSE = ("-v", "--verbose")
COMMANDS = (
    "train",
    "evaluate",
    "recommend",
    "similar",
    "score",
    "explain",
    "serve",
    "calibrate",
    "refit",
    "vectors",
    "export",
    "profile",
    "return-times",
    "retention",
    "compare",
    "transfer",
    "search",
    "synthesise",
    "runs",
    "data",
    "models",
    "doctor",
    "completion",
)
TRUSTING = (
    "evaluate",
    "recommend",
    "similar",
    "score",
    "explain",
    "serve",
    "calibrate",
    "refit",
    "vectors",
    "export",
    "profile",
    "synthesise",
)
"""Commands that load a run's model, which a package of the user's own may define."""
PREPARE, GUESS = "prepare", "guess"
"""What `recsys data` does with files: a log of any size; what they may hold."""
QUICK = ("data", PREPARE, "runs", "doctor")
"""Commands that need no torch, which takes seconds to import, before they answer."""
COMPLETE = "complete"
"""What the script of `recsys completion` calls with the line that is typed."""
COMPOSED = ("train", "transfer", "search")
"""Commands that run a composed config, with Hydra's flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on standard error and a non-zero exit."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every encoding has the letters of a title
        sys.stdout.reconfigure(errors="replace")
    try:
        with _messages(arguments):
            return _dispatch(_without_verbose(arguments))
    except RecsysError as error:
        return failed(str(error))
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for what is flushed at the end
        return 1
    except OSError as error:
        return failed(of_the_system(error))
    except KeyboardInterrupt as stopped:
        return failed(str(stopped) or "stopped", 130)


def _messages(arguments: Sequence[str]) -> AbstractContextManager[None]:
    """Shows what the package logs where `-v` is among the arguments."""
    if _without_verbose(arguments) == list(arguments):
        return nullcontext()
    from recsys.cli.verbose import verbose  # logging comes with it

    return verbose()


def _without_verbose(arguments: Sequence[str]) -> list[str]:
    """The arguments but `-v`; what is behind -- is no option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [word for word in arguments[:end] if word not in VERBOSE] + list(arguments[end:])


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"recsys {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == COMPLETE:
        line = " ".join(rest[-1:])
        print("\n".join(completion.candidates(line, COMMANDS, COMPOSED, flags)))
        return 0
    if command not in COMMANDS:
        raise ConfigError(f"there is no command {command}{nearest(command, COMMANDS)}")
    if command in COMPOSED:
        if {"-h", "--help"} & set(rest):
            print(of_command(command))
            return 0
        return _composed(rest, command)
    if (command, *rest) in (("data",), ("data", "list")):
        print(described("data"))
        return 0
    parser = _parser(command)
    # Options may stand among the rest, but what is behind -- is none.
    given = parser.parse_args(rest) if "--" in rest else parser.parse_intermixed_args(rest)
    if command == "models":
        print(described("model"))
        return 0
    if command == "completion":
        print(completion.BASH)
        return 0
    if command == "data" and given.what == GUESS:
        if given.overrides:
            raise ConfigError(
                f"recsys data guess takes a file or a folder alone, without {given.overrides[0]}; "
                "recsys data describe table takes options"
            )
        from recsys.cli import guess  # polars comes with it

        guess.show(given.name)
        return 0
    if command == "data" and given.what == PREPARE:
        command, given.overrides = PREPARE, [given.name, *given.overrides]
    elif command == "data" and given.name not in names("data"):
        raise ConfigError(f"there is no log {given.name}{nearest(given.name, names('data'))}")
    if command in QUICK:
        from recsys.cli import quick as commands
    else:
        from recsys.cli import commands  # type: ignore[no-redef]  # torch comes with it

    getattr(commands, command.replace("-", "_"))(given)
    return 0


def flags(command: str) -> list[str]:
    """The long options of a command."""
    if command in COMPOSED:
        return ["--cfg", "--config-dir", "--help", "--multirun", "--resolve", "--verbose"]
    usage = _parser(command).format_usage()
    return sorted({"--verbose", "--help", *re.findall(r"--[a-z][\w-]*", usage)})


def _parser(command: str) -> Parser:
    """What a command takes."""
    parser = Parser(prog=f"recsys {command}", epilog="-v shows what is done and how long it takes")
    if command not in ("compare", "data", "models", "runs", "doctor", "completion"):
        parser.add_argument("run", type=Path)
        devices = "auto, cpu, cuda, cuda:1 or mps (default: auto)"
        parser.add_argument("--device", help=devices)
    if command in TRUSTING:
        package = "may define the run's model, and runs code: name your own, or one that you trust"
        parser.add_argument("--trusted", nargs="+", metavar="PACKAGE", default=[], help=package)
    if command == "evaluate":
        options = "such as task.mask_history=true task.ks=[5,50]"
        parser.add_argument("overrides", nargs="*", default=[], help=options)
        parser.add_argument(
            "--output", type=Path, help="a folder for metrics.json, per_user.parquet, …"
        )
    elif command == "recommend":
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("--users", nargs="+", metavar="ID")
        history = "items, oldest first; join a basket's by commas"
        who.add_argument("--history", nargs="+", metavar="ID", help=history)
        every = "every user of the log; --output is then a .parquet file"
        who.add_argument("--all-users", action="store_true", help=every)
        parser.add_argument("-k", type=int, default=10, help="items a user (default: 10)")
        more = "0 to 1: lists that are less of the same, by maximal marginal relevance"
        parser.add_argument("--diversity", type=float, help=more)
        by = "a column of the items whose values are to differ (default: the model's vectors)"
        parser.add_argument("--by", metavar="COLUMN", help=by)
        few = "so many items of each value of a column in a list"
        parser.add_argument("--at-most", nargs="+", metavar="COLUMN=N", default=[], help=few)
        quota = "so many items of a value in a list"
        parser.add_argument(
            "--at-least", nargs="+", metavar="COLUMN=VALUE:N", default=[], help=quota
        )
        up = "move items of a value up, by a share of the scores' range; below 0 down"
        parser.add_argument("--boost", nargs="+", metavar="COLUMN=VALUE:W", default=[], help=up)
        _add_filters(parser, "or item_id and user_id, for each user")
        holds = (
            "what the next basket holds already, which lists complete: ids, or a file as of --allow"
        )
        parser.add_argument("--basket", nargs="+", metavar="ID", help=holds)
        _add_probability(parser)
    elif command == "similar":
        parser.add_argument("--items", nargs="+", metavar="ID", required=True)
        parser.add_argument("-k", type=int, default=10, help="items an item (default: 10)")
        _add_filters(parser, "")
    elif command == "score":
        parser.description = "The rows of a table with the model's score of each user and item."
        pairs = "a table, .csv or .parquet, with the columns user_id and item_id"
        parser.add_argument("pairs", type=Path, help=pairs)
        _add_probability(parser)
        _add_unknown(parser)
    elif command == "explain":
        parser.description = (
            "What brought items to users: parts that add up to the score, the largest first."
        )
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("--users", nargs="+", metavar="ID")
        pairs = "a table, .csv or .parquet, with the columns user_id and item_id"
        who.add_argument("--pairs", type=Path, metavar="FILE", help=pairs)
        lists = "of each of the users (default: the first of its list)"
        parser.add_argument("--items", nargs="+", metavar="ID", help=lists)
        parser.add_argument("-k", type=int, default=3, help="items of a list (default: 3)")
        most = "of a score, the others as one more (default: 5)"
        parser.add_argument("--parts", type=int, default=5, help=most)
        _add_unknown(parser)
    elif command == "calibrate":
        parser.description = (
            "Fits on the validation users how likely a score is to come true, for the run's model "
            "and its baselines, judges it on the test users, and shows it in the run's report."
        )
    elif command == "refit":
        parser.description = (
            "Fits the run's model again, on the events that it held out, too: a trained one for as "
            "many epochs as its best one came after. recsys recommend FOLDER asks it."
        )
        parser.add_argument("--output", type=Path, help="a folder (default: RUN/refit)")
    elif command == "serve":
        parser.description = "Answers /recommend, /similar and /health over HTTP, as JSON."
        parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
        parser.add_argument("--port", type=int, default=8000)
    elif command == "vectors":
        tables = "a folder for items.parquet and users.parquet"
        parser.add_argument("output", type=Path, help=tables)
    elif command == "export":
        parser.description = "Writes the model as ONNX: scores of padded rows of item indices."
        parser.add_argument("output", type=Path, help="a .onnx file")
    elif command == "profile":
        options = "such as data=table data.path=F as_of=DATE"
        parser.add_argument("overrides", nargs="*", default=[], help=options)
        parser.add_argument("--output", type=Path, help="default: RUN/profiles/LOG_DATE.parquet")
    elif command == "return-times":
        parser.description = (
            "The run saved no weights: its model is fitted again from its config and its seed, on "
            "its training rows, and predicts every user as of the moment."
        )
        parser.add_argument("--as-of", help="default: just after the last event")
        parser.add_argument("--output", type=Path, help="a .csv or .parquet file")
    elif command == "retention":
        parser.description = (
            "Asks the decoder that the run started from and the one that it trained the same "
            "questions, by lm-eval: tasks that it knows, or a file of JSON Lines in KMMLU's form."
        )
        options = (
            "tasks=[kmmlu] or questions=FILE; before=FOLDER num_shots=5 limit=100 batch_size=8"
        )
        parser.add_argument("overrides", nargs="*", default=[], help=options)
        parser.add_argument("--output", type=Path, help="a .csv or .parquet file")
    elif command == "synthesise":
        parser.description = (
            "Draws users from the run's model, writes their log, and checks it: whether it can be "
            "told from the real one, and whether it holds copies of real users."
        )
        parser.add_argument("--users", type=int, help="how many (default: as many as trained it)")
        parser.add_argument("--column", help="of the items, whose shares are compared")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--output", type=Path, help="a folder (default: RUN/synthetic)")
    elif command == "compare":
        parser.add_argument("first", type=Path)
        parser.add_argument("second", type=Path)
        parser.add_argument("more", type=Path, nargs="*", default=[], help="of --html alone")
        parser.add_argument("--html", type=Path, metavar="FILE", help="a page of all the runs")
        parser.add_argument("--part", default="test", choices=("validation", "test"))
        every = "every metric, at every length (default: those of a report, at the first length)"
        parser.add_argument("--all", action="store_true", help=every)
    elif command == "runs":
        parser.description = "What the finished runs of a folder and its folders reached."
        parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"))
        by = "a metric or finished, the largest first; or run, log or model"
        parser.add_argument("--by", metavar="COLUMN", help=by)
        parser.add_argument("--metrics", nargs="+", default=[], help="which, such as ndcg@10")
        parser.add_argument("--data", help="only logs with this in their name")
        parser.add_argument("--model", help="only models with this in their name")
        parser.add_argument("--part", default="test", choices=("validation", "test"))
        parser.add_argument("--output", type=Path, help="a .csv or .parquet file, of all figures")
    elif command == "data":
        parser.add_argument("what", choices=("describe", "audit", GUESS, PREPARE))
        in_its_place = "of the log; guess takes a file or a folder, prepare data=table in its place"
        parser.add_argument("name", help=in_its_place)
        options = (
            "such as data.path=events.csv; to prepare, out=FOLDER, and partitions=64 engine=ray "
            "task.filters.min_item_events=5"
        )
        parser.add_argument("overrides", nargs="*", default=[], help=options)
    return parser


def _add_filters(parser: Parser, by_user: str) -> None:
    """Options of what may be in a list, and of where it goes."""
    for name, does in (("allow", "the only items in lists"), ("deny", "items in no list")):
        table = f"{does}: ids, or one .csv or .parquet file with the column item_id {by_user}"
        parser.add_argument(f"--{name}", nargs="+", metavar="ID", help=table.strip())
    _add_unknown(parser)


def _add_probability(parser: Parser) -> None:
    likely = "how likely each item is in the user's next basket, of a run that was calibrated"
    parser.add_argument("--probability", action="store_true", help=likely)


def _add_unknown(parser: Parser) -> None:
    """What is done with unknown ids, and where the table goes."""
    unknown = "ids that the model does not know: left out with a line, or an error (default: skip)"
    parser.add_argument("--unknown", default="skip", choices=("skip", "refuse"), help=unknown)
    parser.add_argument("--output", type=Path, help="a .csv or .parquet file")


def _composed(overrides: Sequence[str], command: str) -> int:
    from recsys.cli import compose  # hydra comes with it

    return compose.train(overrides, command)


if __name__ == "__main__":
    sys.exit(main())
