"""Completion in bash, `recsys completion`: commands, names of configs, options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from recsys.cli.names import CONF, names

BASH = """\
# eval "$(recsys completion)", in ~/.bashrc
_recsys() {
    local IFS=$'\\n'
    COMPREPLY=($(recsys complete -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _recsys recsys"""
GROUPS = ("data", "task", "model", "experiment", "search", "trainer", "logger", "retrieval")
"""Groups of which something is chosen by name."""


def candidates(
    line: str,
    commands: Sequence[str],
    composed: Sequence[str],
    flags: Callable[[str], Iterable[str]],
) -> list[str]:
    """What the last word of a line may become, as bash inserts it: behind an equals sign, the rest.

    Args:
        line: as far as the cursor.
        commands: of `recsys`.
        composed: those of them that take overrides of a config.
        flags: of a command, its options such as `--users`.
    """
    *before, word = line.split(" ")
    words = [w for w in before[1:] if w]
    option, equals, value = word.partition("=")
    known: Iterable[str]
    if word.startswith("-"):
        known = flags(words[0]) if words and words[0] in commands else ("--help", "--version")
    elif not words:
        known = commands
    elif words in (["data", "describe"], ["data", "audit"]):
        known = names("data")
    elif words[0] not in composed:
        known = ()
    elif equals:
        word, known = value, names(option) if option in GROUPS else ()
    else:
        known = {f"{name}=" for name in _options(words)}
    return sorted(name for name in known if name.startswith(word))


def _options(words: Sequence[str]) -> Iterator[str]:
    """Groups, and the options of a config with the choices that stand on the line so far."""
    yield from (group for group in GROUPS if (CONF / group).is_dir())
    from omegaconf import OmegaConf  # hydra comes with it

    from recsys.cli.compose import compose
    from recsys.errors import RecsysError
    from recsys.run.config import flat

    choices = [w for w in words[1:] if w.partition("=")[0] in GROUPS]
    try:
        config = OmegaConf.to_container(compose(choices, words[0]))
    except (RecsysError, KeyError):
        return
    yield from (name for name, _ in flat(config) if "_target_" not in name)
