"""What the command line says of itself, from the names of its configs: without an import."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from recsys import __version__
from recsys.cli.names import CONF, names

OVERVIEW = """\
recsys {version}: recommender-system research. One behaviour log in, an honest table out.

  recsys train data=NAME model=NAME [OPTION=VALUE …]   fit, evaluate, write a run's folder
  recsys train experiment=NAME                         a row of a published table
  recsys evaluate RUN [OPTION=VALUE …]                 ask a run's model again
  recsys recommend RUN --users ID … | --history ID …   its lists, for users or any history
  recsys recommend RUN --all-users --output FILE       its lists for every user, as Parquet
  recsys similar RUN --items ID …                      items like an item
  recsys score RUN FILE                                scores of given users and items
  recsys explain RUN --users ID … | --pairs FILE       what brought items to users, part by part
  recsys serve RUN [--port 8000]                       its lists over HTTP, as JSON
  recsys calibrate RUN                                 its scores as probabilities
  recsys refit RUN                                     its model for use, fitted on the whole log
  recsys vectors RUN FOLDER                            its item and user vectors, as Parquet
  recsys export RUN FILE.onnx                          its scores, for software without torch
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
  recsys runs [FOLDER] [--by METRIC]                   what finished runs reached, side by side
  recsys models                                        the zoo
  recsys doctor                                        versions, devices, folders, extras
  recsys completion                                    a script for bash that completes all this

  data         {data}
  models       {model}
  experiments  {experiment}

Every option: recsys train data=NAME model=NAME --cfg job
What a command does, and how long it takes: -v or --verbose, before or behind the command
"""

OF_COMMANDS = {
    "train": """\
recsys train data=NAME model=NAME [OPTION=VALUE …]

Reads a log, divides it as a task says, fits a model on the training part, asks it about the users
of the validation and the test part, and writes a run's folder: figures, lists, weights, a page.

  recsys train data=complete_journey model=item_knn
  recsys train data=table data.path=log.csv data.columns.user_id=customer model=sasrec
  recsys train data=dc task=next_basket model=tifuknn 'baselines=[popularity,up_cf]'
  recsys train -m data=dc model=ease model.l2=10,100,1000
""",
    "search": """\
recsys search data=NAME model=NAME [n_trials=40] [seconds=SECONDS] [OPTION=VALUE …]

Tries settings of a model on the validation users, and asks the test users once, for the best one.
Every option of recsys train may be given, too.

  recsys search data=dc model=tifuknn n_trials=40
  recsys search data=dc 'models=[tifuknn,up_cf]' seconds=300
  recsys search data=dc model=ease 'search.space.model.l2=[1,1e4,log]'
""",
    "transfer": """\
recsys transfer data=NAME model=NAME [transfer.column=COLUMN] [OPTION=VALUE …]

Divides a log by a column of its items and says of each domain whether the model gains from the
others.
Every option of recsys train may be given, too.

  recsys transfer data=complete_journey transfer.column=department model=item_knn
""",
}
OPTIONS = """\
What is chosen by name:

  data          {data}
  task          {task}
  model         {model}
  experiment    {experiment}
                and /NAME behind it: a row of a published table; `recsys` lists them all

What is set:

  baselines=[NAME,NAME]       models of the table beside the run's
  trainer.max_epochs=20       and batch_size, patience, monitor, evaluate_every, precision, …
  model.OPTION=VALUE          as the model's class has it: {command} … --cfg job prints all
  data.OPTION=VALUE           such as data.path=FILE data.columns.timestamp=day of your own table
  task.OPTION=VALUE           such as task.ks=[5,10] and task.mask_history=true
  seed=0  device=auto         cpu, cuda, cuda:1 or mps
  hydra.run.dir=FOLDER        in place of a new one in runs/; a run that was stopped goes on there

  -m, --multirun              a run for each of several values, and a table of them at the end
  -c job, --cfg job           print the config with every option, and run nothing
  -cd FOLDER                  a folder of your own configs, such as model/mine.yaml
  -v, --verbose               what is done, and how long it takes"""


def of_command(command: str) -> str:
    """What a command that runs a config takes."""
    listed = {group: _wrapped(names(group), 16) for group in ("data", "task", "model")}
    opening = dict.fromkeys(name.partition("/")[0] for name in names("experiment"))
    listed["experiment"] = _wrapped([*opening], 16)
    return f"{OF_COMMANDS[command]}\n{OPTIONS.format(command=f'recsys {command}', **listed)}"


def overview() -> str:
    """What `recsys` alone prints."""
    listed = {group: _wrapped(names(group)) for group in ("data", "model", "experiment")}
    return OVERVIEW.format(version=__version__, **listed)


def described(group: str) -> str:
    """Every option of a group with the first comment line of its file."""
    rows = [(name, _summary(CONF / group / f"{name}.yaml")) for name in names(group)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {summary}" for name, summary in rows)


def _summary(path: Path) -> str:
    lines = (line for line in path.read_text("utf-8").splitlines() if line.startswith("# "))
    return next((line[2:] for line in lines if not line.startswith("# @package")), "")


def _wrapped(words: Sequence[str], indent: int = 15, width: int = 100) -> str:
    return textwrap.fill(", ".join(words), width - indent).replace("\n", "\n" + " " * indent)
