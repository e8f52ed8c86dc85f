"""The command line. Torch and Hydra are imported by the command that needs them, not before."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from recsys import __version__
from recsys.cli.names import CONF, Parser, failed, names, nearest, of_the_system
from recsys.errors import ConfigError, RecsysError

VERBOSE = ("-v", "--verbose")
COMMANDS = (
    "train",
    "evaluate",
    "recommend",
    "vectors",
    "profile",
    "return-times",
    "retention",
    "compare",
    "transfer",
    "search",
    "synthesise",
    "data",
    "models",
)
PREPARE, GUESS = "prepare", "guess"
"""What `recsys data` does with files: a log of any size; what they may hold."""
COMPOSED = ("train", "transfer", "search")
"""Commands that run a composed config, with Hydra's flags."""

OVERVIEW = """\
recsys {version}: recommender-system research. One behaviour log in, an honest table out.

  recsys train data=NAME model=NAME [OPTION=VALUE …]   fit, evaluate, write a run's folder
  recsys train experiment=NAME                         a row of a published table
  recsys evaluate RUN [OPTION=VALUE …]                 ask a run's model again
  recsys recommend RUN --users ID … | --history ID …   its lists, for users or any history
  recsys vectors RUN FOLDER                            its item and user vectors, as Parquet
  recsys profile RUN [data=NAME] [as_of=DATE]          vectors of users for any task, as Parquet
  recsys return-times RUN [--as-of DATE]               when each user will be back, as a table
  recsys retention RUN tasks=[NAME] | questions=FILE   what its language model forgot
  recsys compare RUN RUN                               paired test, metric by metric
  recsys transfer data=NAME model=NAME [OPTION=VALUE]  does a domain gain from the others?
  recsys search data=NAME model=NAME [n_trials=40]     settings by trials on the validation users
  recsys synthesise RUN [--users N] [--column COLUMN]  a log of drawn users, and checks of it
  recsys data list | describe NAME | audit NAME        the logs, and what is odd about one
  recsys data guess FILE                               the command that reads a file of your own
  recsys data prepare data=table data.path=F out=F     a log of any size, for data=prepared
  recsys models                                        the zoo

  data         {data}
  models       {model}
  experiments  {experiment}

Every option: recsys train data=NAME model=NAME --cfg job
What a command does, and how long it takes: -v or --verbose, before or behind the command
"""


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
    if command not in COMMANDS:
        raise ConfigError(f"there is no command {command}{nearest(command, COMMANDS)}")
    if command in COMPOSED:
        return _composed(rest, command)
    if (command, *rest) in (("data",), ("data", "list")):
        print(_described("data"))
        return 0
    parser = _parser(command)
    # Options may stand among the rest, but what is behind -- is none.
    given = parser.parse_args(rest) if "--" in rest else parser.parse_intermixed_args(rest)
    if command == "models":
        print(_described("model"))
        return 0
    if command == "data" and given.what == GUESS:
        from recsys.cli import guess  # polars comes with it

        guess.show(given.name)
        return 0
    if command == "data" and given.what == PREPARE:
        command, given.overrides = PREPARE, [given.name, *given.overrides]
    elif command == "data" and given.name not in names("data"):
        raise ConfigError(f"there is no log {given.name}{nearest(given.name, names('data'))}")
    from recsys.cli import commands  # torch comes with it

    getattr(commands, command.replace("-", "_"))(given)
    return 0


def overview() -> str:
    """What `recsys` alone prints."""
    listed = {group: _wrapped(names(group)) for group in ("data", "model", "experiment")}
    return OVERVIEW.format(version=__version__, **listed)


def _parser(command: str) -> Parser:
    """What a command takes."""
    parser = Parser(prog=f"recsys {command}", epilog="-v shows what is done and how long it takes")
    if command not in ("compare", "data", "models"):
        parser.add_argument("run", type=Path)
        devices = "auto, cpu, cuda, cuda:1 or mps (default: auto)"
        parser.add_argument("--device", help=devices)
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
        parser.add_argument("-k", type=int, default=10, help="items a user (default: 10)")
        parser.add_argument("--output", type=Path, help="a .csv or .parquet file")
    elif command == "vectors":
        tables = "a folder for items.parquet and users.parquet"
        parser.add_argument("output", type=Path, help=tables)
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
        parser.add_argument("--part", default="test", choices=("validation", "test"))
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


def _composed(overrides: Sequence[str], command: str) -> int:
    from recsys.cli import compose  # hydra comes with it

    return compose.train(overrides, command)


def _described(group: str) -> str:
    """Every option of a group with the first comment line of its file."""
    rows = [(name, _summary(CONF / group / f"{name}.yaml")) for name in names(group)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {summary}" for name, summary in rows)


def _summary(path: Path) -> str:
    lines = (line for line in path.read_text("utf-8").splitlines() if line.startswith("# "))
    return next((line[2:] for line in lines if not line.startswith("# @package")), "")


def _wrapped(words: Sequence[str], indent: int = 15, width: int = 96) -> str:
    return textwrap.fill(", ".join(words), width, subsequent_indent=" " * indent)


if __name__ == "__main__":
    sys.exit(main())
