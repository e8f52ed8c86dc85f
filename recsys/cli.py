"""The command line. Torch and Hydra are imported by the command that needs them, not before."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from recsys import __version__
from recsys.errors import ConfigError, RecsysError

CONF = Path(__file__).parent / "conf"

COMMANDS = ("train", "evaluate", "recommend", "vectors", "profile", "compare", "data", "models")

OVERVIEW = """\
recsys {version}: recommender-system research. One behaviour log in, an honest table out.

  recsys train data=NAME model=NAME [OPTION=VALUE …]   fit, evaluate, write a run's folder
  recsys train experiment=NAME                         a row of a published table
  recsys evaluate RUN [OPTION=VALUE …]                 ask a run's model again
  recsys recommend RUN --users ID … | --history ID …   its lists, for users or any history
  recsys vectors RUN FOLDER                            its item and user vectors, as Parquet
  recsys profile RUN [data=NAME] [as_of=DATE]          vectors of users for any task, as Parquet
  recsys compare RUN RUN                               paired test, metric by metric
  recsys data list | describe NAME | audit NAME        the logs, and what is odd about one
  recsys models                                        the zoo

  data         {data}
  models       {model}
  experiments  {experiment}

Every option: recsys train data=NAME model=NAME --cfg job
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on standard error and a non-zero exit."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _dispatch(arguments)
    except RecsysError as error:
        return _failed(str(error))
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return _failed(
            "stopped; the same command with the same hydra.run.dir goes on from here", 130
        )


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "train":
        return _train(arguments[1:])
    if arguments == ["models"]:
        print(_zoo())
        return 0
    if arguments[0] == "data" and arguments[1:] in ([], ["list"]):
        print(_described("data"))
        return 0
    if arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
        raise ConfigError(f"there is no command {arguments[0]}{nearest(arguments[0], COMMANDS)}")
    given = _parser().parse_args(arguments)
    from recsys import commands  # torch comes with it

    getattr(commands, given.command)(given)
    return 0


def overview() -> str:
    """What `recsys` alone prints."""
    listed = {group: _wrapped(names(group)) for group in ("data", "model", "experiment")}
    return OVERVIEW.format(version=__version__, **listed)


def names(group: str) -> list[str]:
    """The options of a config group: its files' names, without imports."""
    folder = CONF / group
    return sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml"))


def nearest(word: str, known: Sequence[str]) -> str:
    """Known words that a misspelt one may have meant, as the end of a sentence."""
    close = get_close_matches(word, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; there is {', '.join(known)}"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="recsys", add_help=True)
    parser.add_argument("--version", action="version", version=f"recsys {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    ask = commands.add_parser("evaluate", help="ask a run's model again")
    ask.add_argument("run", type=Path)
    ask.add_argument("overrides", nargs="*", help="such as task.mask_history=true task.ks=[5,50]")
    ask.add_argument("--output", type=Path, help="a folder for metrics.json, per_user.parquet, …")
    recommend = commands.add_parser("recommend", help="a run's lists")
    recommend.add_argument("run", type=Path)
    who = recommend.add_mutually_exclusive_group(required=True)
    who.add_argument("--users", nargs="+", metavar="ID")
    who.add_argument(
        "--history", nargs="+", metavar="ID", help="items, oldest first; join a basket's by commas"
    )
    recommend.add_argument("-k", type=int, default=10, help="items a user (default: 10)")
    recommend.add_argument("--output", type=Path, help="a .csv or .parquet file")
    vectors = commands.add_parser("vectors", help="a model's item and user vectors")
    vectors.add_argument("run", type=Path)
    vectors.add_argument("output", type=Path, help="a folder for items.parquet and users.parquet")
    profile = commands.add_parser("profile", help="vectors of users as of a moment")
    profile.add_argument("run", type=Path)
    profile.add_argument("overrides", nargs="*", help="such as data=table data.path=F as_of=DATE")
    profile.add_argument("--output", type=Path, help="default: RUN/profiles/LOG_DATE.parquet")
    compare = commands.add_parser("compare", help="paired test of two runs")
    compare.add_argument("first", type=Path)
    compare.add_argument("second", type=Path)
    compare.add_argument("--part", default="test", choices=("validation", "test"))
    for asking in (ask, recommend, vectors, profile):
        asking.add_argument("--device", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    data = commands.add_parser("data", help="the logs")
    data.add_argument("what", choices=("list", "describe", "audit"))
    data.add_argument("name")
    data.add_argument("overrides", nargs="*", help="such as data.path=events.csv")
    return parser


class _Parser(argparse.ArgumentParser):
    """Argparse's mistakes as ours: one line, the nearest name."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _train(overrides: Sequence[str]) -> int:
    from recsys import compose  # hydra comes with it

    return compose.train(overrides)


def _described(group: str) -> str:
    """Every option of a group with the first comment line of its file."""
    rows = [(name, _summary(CONF / group / f"{name}.yaml")) for name in names(group)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {summary}" for name, summary in rows)


def _summary(path: Path) -> str:
    lines = (line for line in path.read_text().splitlines() if line.startswith("# "))
    return next((line[2:] for line in lines if not line.startswith("# @package")), "")


def _zoo() -> str:
    return _described("model")


def _wrapped(words: Sequence[str], indent: int = 15, width: int = 96) -> str:
    return textwrap.fill(", ".join(words), width, subsequent_indent=" " * indent)


def _failed(message: str, code: int = 2) -> int:
    print(f"recsys: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
