"""Who runs the work on partitions: this process, one partition after another, or Ray's workers.

A piece of work is a function of a module and its arguments: paths, numbers and options. What comes
out does not depend on who ran it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar, assert_never

from recsys.errors import ConfigError

Result = TypeVar("Result")
EngineName = Literal["polars", "ray"]


class InTurn:
    """One run after another, each on all cores that polars has.

    Attributes:
        workers: how many runs there are at a time.
    """

    workers = 1

    def run(
        self, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """What the function returns for each tuple of arguments, in their order."""
        return (function(*arguments) for arguments in calls)


class Ray:
    """Each run a task of Ray, of the cluster in `RAY_ADDRESS` or of this machine alone.

    The folders that are read and written have to be there on every machine of a cluster.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(self) -> None:
        try:
            import ray  # the extra `ray`
        except ImportError as error:
            raise ConfigError("engine=ray needs Ray; pip install 'recsys[ray]'") from error
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        self.ray = ray
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(
        self, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """As `InTurn.run`; a task's own error is raised here."""
        task = self.ray.remote(function)
        pending = [task.remote(*arguments) for arguments in calls]
        while pending:
            try:
                yield self.ray.get(pending.pop(0))
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from None


Engine = InTurn | Ray


def engine_of(name: EngineName) -> Engine:
    """The engine of a name."""
    match name:
        case "polars":
            return InTurn()
        case "ray":
            return Ray()
    assert_never(name)
