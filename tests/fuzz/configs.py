"""Configs that try to call what they may not, in the folders of runs that are asked everything.

    python tests/fuzz/configs.py FOLDER 0 1000   # cases 0 .. 999, after `damage.py make FOLDER`

A line is the case, the run, what was tried, and of every command `fine`, `refused` or `broken`.
What a config names is watched in two ways: functions that note their calls, some of which pass for
ours by their name and their module, and the interpreter's own audit of processes, files, sockets.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from damage import ask, lists

import recsys
from recsys.report import ranking_page

called: list[str] = []


class Class:
    """Notes that it is made."""

    def __init__(self, *_: Any, **__: Any) -> None:
        called.append("canary.Class")

    @classmethod
    def method(cls, *_: Any, **__: Any) -> None:
        called.append("canary.Class.method")


def canary(module: ModuleType) -> str:
    """Puts a function into a module that looks as if it were its own."""

    def call(*_: Any, **__: Any) -> None:
        called.append(f"{module.__name__}.call")

    call.__module__ = module.__name__
    made = type("Made", (Class,), {"__module__": module.__name__})
    module.call, module.Made = call, made  # type: ignore[attr-defined]
    return module.__name__


words = re.compile(r"\S+").findall
WATCHED = words("""
os.system os.exec os.posix_spawn os.fork subprocess.Popen socket.connect os.mkdir os.remove
os.rename shutil.rmtree os.symlink urllib.Request
""")
RUNNING = False


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if RUNNING and event in WATCHED and str(SCRATCH) not in str(arguments):
        called.append(f"{event}{arguments}"[:200])


def modules() -> list[str]:
    """Where a config may look for a function that passes for ours."""
    sys.modules["canary"] = made = ModuleType("canary")
    made.call, made.Class = Class.method, Class  # type: ignore[attr-defined]
    names = (
        "recsys.models",
        "recsys.models.language.lmrec",
        "recsys.tasks.splits",
        "recsys.retrieval.index",
        "recsys",
    )
    names += (
        "recsys.data.sources.table",
        "recsys.data.sources",
        "recsys.log.words",
        "recsys.scoring.trust",
    )
    return [canary(__import__(name, fromlist=[""])) for name in names]


OURS: list[str] = []
FOREIGN = words("""
canary.call canary.Class canary.Class.method os.system os.mkdir os.remove subprocess.Popen
subprocess.run builtins.eval builtins.exec builtins.open builtins.__import__ pathlib.Path.touch
shutil.rmtree torch.load pickle.loads torch.hub.load hydra.utils.instantiate hydra.utils.call
omegaconf.OmegaConf.load functools.partial operator.methodcaller importlib.import_module
runpy.run_path recsys.scoring.trust.build recsys.scoring.saved_model.load
recsys.scoring.saved_model.save recsys.run.ranking.run
recsys.data.cache.cached recsys.scoring.trust.import_module recsys.models.language.decoders.deepcopy
recsys.data.sources.files.os.system recsys.tasks.splits.torch.load recsys.models.torch
recsys.models.language.decoders.AutoModelForCausalLM.from_pretrained recsys.models.LMRec.export
recsys.models.EASE.fit recsys.retrieval.index.faiss.read_index recsys.scoring.Profile
recsys.models.neighbours._item_rows.held_items recsys.data.coupon recsys.cli.main.main
""")
LISTED = words("""
recsys.models.FineTuned recsys.data.LogCorpus recsys.models.language.Pretrained
recsys.data.sources.table.table recsys.tasks.last_basket recsys.models.EASE recsys.models.Blend
recsys.retrieval.FaissIndex recsys.nn.SentenceVectors
""")


def target(chance: random.Random) -> Any:
    """A name, or what is none, for `_target_`."""
    name = chance.choice([*FOREIGN, *FOREIGN, *OURS, *LISTED])
    forms: list[Any] = [name] * 12
    forms += [f" {name}", f"{name} ", name.replace(".", ":", 1), name.replace(".", "..", 1), [name]]
    forms += [
        {"_target_": name},
        name.split("."),
        f".{name}",
        name.upper(),
        f"{name}\n",
        f"{name}.x",
    ]
    forms += [name.replace("recsys", "recsys.models", 1), name.replace("o", "о"), None, 3, True, ""]
    forms += [f"recsys.models.{name}", f"recsys.data.sources.table.{name}", f"recsys.{name}"]
    return chance.choice(forms)


def call(chance: random.Random) -> dict[Any, Any]:
    """What means a call, or would where it is read otherwise."""
    made: dict[Any, Any] = {"_target_": target(chance)}
    more: list[tuple[Any, Any]] = [
        ("_args_", ["touch x"]),
        ("_partial_", True),
        ("_convert_", "all"),
    ]
    more += [("_recursive_", False), ("_partial_", "x"), ("path", "/etc/passwd"), ("_target", "x")]
    more += [("command", "touch x"), ("args", ["x"]), (3, 4), (None, 1), ("__class__", "os.system")]
    more += [("num_items", ITEMS), ("members", {"a": {"_target_": target(chance)}}), ("run", "/")]
    more += [
        ("source", "files.os.system"),
        ("options", {"command": "touch x"}),
        ("path", "org/model"),
    ]
    for key, value in chance.sample(more, chance.choice([0, 0, 1, 2, 4])):
        made[key] = value
    return made


ITEMS = 20


def interpolation(chance: random.Random) -> str:
    inner = json.dumps(call(chance), default=str).replace('"', "")
    forms = ["${num_items}", "${oc.env:HOME}", "${oc.create:" + inner + "}", "${sections.${seed}}"]
    forms += ['${oc.select:"sections.${num_items}"}', "${oc.decode:'" + inner + "'}", "${hydra:x}"]
    forms += ["\\${x}", "$ {x}", "${", "}${x}", "${oc.dict.values:data}", "${now:%Y}", "a${seed}b"]
    return chance.choice(forms)


def evil(chance: random.Random) -> Any:
    """A call or an interpolation, bare or inside of something."""
    made: Any = interpolation(chance) if chance.random() < 0.25 else call(chance)
    for _ in range(chance.choice([0, 0, 0, 1, 2, 20])):
        made = chance.choice([[made], {"a": made}, [1, made], {"members": {"x": made}}])
    return made


def planted(config: Any, chance: random.Random) -> Any:
    """A config with something evil in the place of a value, or beside one."""
    if isinstance(config, dict) and config and chance.random() < 0.8:
        key = chance.choice(list(config))
        if chance.random() < 0.2:
            return {**config, chance.choice([key, "x", "_target_", "members"]): evil(chance)}
        return {**config, key: planted(config[key], chance)}
    if isinstance(config, list) and config and chance.random() < 0.8:
        place = chance.randrange(len(config))
        return [*config[:place], planted(config[place], chance), *config[place + 1 :]]
    if isinstance(config, str) and chance.random() < 0.3:
        return target(chance)
    return evil(chance)


def written(config: dict[str, Any], chance: random.Random) -> str:
    """YAML of a config, or YAML that does something itself."""
    text = yaml.safe_dump(config, sort_keys=False)
    name = chance.choice(FOREIGN)
    tags = [f"!!python/object/apply:{name} ['touch x']", f"!!python/name:{name} ''", "!!set {a}"]
    tags += [
        f"!!python/object/new:{name} [x]",
        f"!!python/module:{name} ''",
        "!x y",
        "!!binary aGk=",
    ]
    more = [f"x: {chance.choice(tags)}\n", "x: &a 1\ny: *a\n", f"{chance.choice(tags)}: 1\n"]
    more += [
        "retrieval: {index: {_target_: canary.call}}\n",
        "<<: {data: {_target_: canary.call}}\n",
    ]
    more += [f"data:\n  _target_: {name}\n", "? {_target_: canary.call}\n: 1\n", "---\na: 1\n"]
    return text + chance.choice(more) if chance.random() < 0.25 else text


def prepared(number: int) -> tuple[str, str, Path]:
    """The run, the file that was changed, and the folder of the copy."""
    chance = random.Random(number)
    name = chance.choice([p.name for p in sorted(SCRATCH.glob("runs/*")) if p.name != "labels"])
    whole, copy = SCRATCH / "runs" / name, SCRATCH / "copies" / name
    if not copy.exists():
        shutil.copytree(whole, copy)
        (copy / "model" / "manifest.json").unlink()
    for path in ("config.yaml", "model/recsys.json"):
        shutil.copy(whole / path, copy / path)
    if chance.random() < 0.6:
        path = copy / "model" / "recsys.json"
        described = json.loads(path.read_text())
        for _ in range(chance.choice([1, 1, 2])):
            described["model"] = planted(described["model"], chance)
        path.write_text(json.dumps(described, default=str))
        return name, "recsys.json", copy
    path = copy / "config.yaml"
    config = yaml.safe_load(path.read_text())
    section = chance.choice(["data", "task", "retrieval", "retrieval", "num_items", "model", "x"])
    config[section] = planted(config.get(section), chance)
    if chance.random() < 0.2:
        config["sections"] = {str(n): evil(chance) for n in (0, ITEMS)}
    path.write_text(written(config, chance))
    return name, f"config.yaml: {section}", copy


def commands(name: str, file: str, copy: Path, chance: random.Random) -> Iterator[tuple[str, Any]]:
    if file == "recsys.json":
        yield "load", lambda: recsys.load(copy)
        if chance.random() < 0.7:  # each of the others begins by that
            return
        yield "lists", lambda: lists(copy)
        yield "recommend", ["recommend", str(copy), "--users", "u01", "-k", "3"]
        yield "vectors", ["vectors", str(copy), str(SCRATCH / "vectors")]
    yield "evaluate", ["evaluate", str(copy)]
    yield "profile", ["profile", str(copy), "--output", str(SCRATCH / "profile.parquet")]
    yield "compare", ["compare", str(copy), str(SCRATCH / "runs" / name)]
    if chance.random() < 0.05:
        yield "report", lambda: ranking_page.write(copy)


def asked(number: int) -> str:
    global RUNNING
    name, file, copy = prepared(number)
    outcomes = []
    for label, what in commands(name, file, copy, random.Random(-number)):
        sys.argv = ["recsys"]
        RUNNING = True
        outcome, _ = ask(what)
        RUNNING = False
        outcomes.append(f"{label}: {outcome}")
        if called:
            outcomes.append(f"broken: called {called}")
            called.clear()
    return f"{number} {name} {file}: {'; '.join(outcomes)}"


SCRATCH = Path()

if __name__ == "__main__":
    place, first, last = Path(sys.argv[1]).absolute(), int(sys.argv[2]), int(sys.argv[3])
    SCRATCH = place / f"configs_{first}"
    SCRATCH.mkdir(exist_ok=True)
    for entry in ("runs", "log.csv"):
        if not (SCRATCH / entry).exists():
            (SCRATCH / entry).symlink_to(place / entry)
    torch.set_num_threads(1)
    OURS += [f"{module}.{name}" for module in modules() for name in ("call", "Made", "Made.method")]
    sys.addaudithook(audit)
    sys.stdin = io.StringIO("y\n" * 1000)  # whoever is asked agrees
    for number in range(first, last):
        print(asked(number), flush=True)
