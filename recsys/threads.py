"""How the threads of numerical libraries wait, and how many there are.

OpenMP's threads spin while they wait for the next loop, which takes the processor away from the
work they wait for when another process is running: training beside one took half as long again.
Here they sleep after a short look. The libraries read these variables once, when they are loaded,
so `recsys` sets them when it is imported, before torch; what is set already stays.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def configure() -> None:
    """Let OpenMP's threads sleep, and start no more than a container may keep busy."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        # The short look is for small steps, which would wait to be woken at each loop.
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="1000")
    quota = processor_quota()
    # Libraries count the processors that they may run on, and not how long.
    if quota is not None and quota < len(os.sched_getaffinity(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(math.ceil(quota), 1)))


def processor_quota(
    group: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Processors that the control group of this process may keep busy; None without a limit.

    Args:
        group: the file that names the group, `0::/path` in version 2 of control groups.
        root: where the groups are mounted.
    """
    try:
        names = group.read_text().splitlines()
    except OSError:  # no Linux
        return None
    groups = [root / name.removeprefix("0::/") for name in names if name.startswith("0::/")]
    quotas = [_quota(place / "cpu.max") for path in groups for place in (path, *path.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(path: Path) -> float | None:
    """Of a file `microseconds period`, or `max period`."""
    try:
        limit, period = path.read_text().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) / int(period)
