"""What a `_target_` makes, held against what an option is for, before anything of it is called.

As far as annotations tell: a class makes itself, a function what it says that it returns. Of a
function that does not say, nothing is held against it, but for Python's own library, of which no
function makes anything of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import import_module
from inspect import Parameter, isabstract, signature
from pkgutil import resolve_name
from typing import Any, TypeGuard, get_args, get_origin, get_type_hints

from recsys.scoring import trust

_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The types that a function or class is annotated with; none where nobody knows them here."""
    try:
        return get_type_hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    except (NameError, TypeError):  # imported for type checkers alone, or no Python
        return {}


def may_make(options: Mapping[Any, Any], kind: Any) -> bool:
    """Whether a section with a `_target_` may make what an option is for.

    Args:
        options: the section. One whose target cannot be found may: that is told elsewhere.
        kind: a class, a protocol, or a `Callable`, which `_partial_: true` makes.
    """
    target = _found(str(options[trust.TARGET]))
    if target is None:
        return True
    later = bool(options.get(trust.PARTIAL, False))
    if get_origin(kind) is Callable:
        return later and _makes(target, get_args(kind)[-1])
    if not _is_class(kind) or not later:
        return _makes(target, kind)
    given = [name for name in options if not str(name).startswith("_")]
    return _is_called(kind) and _is_such_a_call(target, kind, _arity(kind), given)


def examples(kind: Any) -> list[str]:
    """Targets of ours that make what an option is for, as a config names them."""
    made = get_args(kind)[-1] if get_origin(kind) is Callable else kind
    if not _is_class(made) or made is object:
        return []
    targets = ((name, _found(name)) for name in _listed(made))
    names = [name for name, target in targets if target is not None and _makes(target, made)]
    public = f"{made.__module__.rpartition('.')[0]}.{made.__name__}"
    is_its_own = made is kind and not isabstract(made) and not _is_protocol(made)
    return names or [public] * (is_its_own and _found(public) is made)


def _found(name: str) -> Callable[..., Any] | None:
    try:
        target = resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return target if callable(target) else None


def _listed(kind: type) -> Iterator[str]:
    """What a folder's config may call, which is what there is to choose from."""
    for targets in trust.LISTED.values():
        yield from targets
    if f"{kind.__module__}.".startswith("recsys.scoring."):  # to look there takes seconds
        yield from (f"{trust.ZOO}.{name}" for name in import_module(trust.ZOO).__all__)


def _is_class(kind: Any) -> TypeGuard[type]:
    return isinstance(kind, type) and kind is not Any  # which is a class since Python 3.11


def _makes(target: Callable[..., Any], kind: Any) -> bool:
    if not _is_class(kind):
        return True
    if isinstance(target, type):
        return _is_a(target, kind)
    made = hints_of(target).get("return")
    if not _is_class(made):
        return not _is_of_python(target)
    return _is_a(made, kind) or issubclass(kind, made)  # it may return more than it says


def _is_of_python(target: Callable[..., Any]) -> bool:
    module = getattr(target, "__module__", None) or ""
    return module.partition(".")[0] in sys.stdlib_module_names


def _is_a(made: type, kind: type) -> bool:
    if not _is_protocol(kind):
        return issubclass(made, kind)
    fields = (name for base in made.__mro__ for name in vars(base).get("__annotations__", ()))
    there = {*dir(made), *fields}
    if any(name not in there or getattr(made, name, 0) is None for name in _members(kind)):
        return False
    if not _is_called(kind):
        return True
    # A module's call is its forward, of which it may have none but that of its base.
    call = getattr(made, "forward", made.__call__)
    is_its_own = call.__module__.partition(".")[0] not in ("torch", "pytorch_lightning")
    return is_its_own and _is_such_a_call(call, kind, 1 + _arity(kind))


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _members(kind: type) -> list[str]:
    """What a protocol asks for."""
    names = [*vars(kind), *vars(kind).get("__annotations__", ())]
    return [n for n in names if n in ("__call__", "__hash__") or not n.startswith("_")]


def _is_called(kind: type) -> bool:
    return _is_protocol(kind) and "__call__" in vars(kind)


def _arity(kind: type) -> int:
    """How many arguments a protocol's call is given."""
    parameters = signature(kind.__call__).parameters.values()
    return sum(parameter.kind in _BY_PLACE for parameter in parameters) - 1


def _is_such_a_call(
    call: Callable[..., Any], kind: type, places: int, given: Collection[str] = ()
) -> bool:
    """Whether a function can stand for the call of a protocol.

    Args:
        call: a function.
        kind: the protocol.
        places: how many arguments it is given by their places.
        given: the names of others.
    """
    returned, wanted = (hints_of(of).get("return") for of in (call, kind.__call__))
    if _is_class(returned) and _is_class(wanted) and not issubclass(returned, wanted):
        return False
    try:
        signature(call).bind(*[None] * places, **dict.fromkeys(given))
    except TypeError:
        return False
    except ValueError:  # of some built-in functions nobody knows
        return not _is_of_python(call)
    return True
