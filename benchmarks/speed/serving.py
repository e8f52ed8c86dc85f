"""`recsys serve` under load: SASRec on Beauty on one core, at a steady rate of requests.

    python -m benchmarks.speed.serving RUN [--rates 100 200 300]

The service is a process of its own on the last core, with one thread; what asks it is on the first.
Requests, each for ten items of one user, are sent at fixed moments, whether earlier ones have been
answered or not; a latency counts from the moment at which a request was due. Then the service is
killed, started again, and asked the same: the lists must be the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.record import ROOT, write

RESULTS = ROOT / "benchmarks/speed/results"
PACKAGES = ["recsys", "torch", "polars", "starlette", "uvicorn"]
PORT = 8765
WARM_UP, SECONDS = 3.0, 20.0
CONNECTIONS = 64
USERS = 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--rates", nargs="+", type=int, default=[100, 200, 300])
    given = parser.parse_args()
    table = pl.read_parquet(given.run / "model" / "users.parquet", glob=False)
    users = table[:, 0].sample(USERS, seed=0)
    first, *_, last = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    service = started(given.run, last)
    before = [lists_of(user) for user in users[:50]]
    rows = []
    for rate in given.rates:
        asyncio.run(load(rate, WARM_UP, users.to_list()))
        busy = cpu_seconds(service)
        latencies = asyncio.run(load(rate, SECONDS, users.to_list()))
        rows.append(
            {
                "rate": rate,
                "requests": len(latencies),
                "core": round((cpu_seconds(service) - busy) / SECONDS, 3),
                **{f"p{p}_ms": round(float(np.percentile(latencies, p)), 1) for p in (50, 95, 99)},
                "worst_ms": round(float(latencies.max()), 1),
            }
        )
        print(rows[-1], flush=True)
    os.killpg(service.pid, signal.SIGKILL)
    service.wait()
    service = started(given.run, last)
    same = [lists_of(user) for user in users[:50]] == before
    os.killpg(service.pid, signal.SIGKILL)
    print(f"the same lists after it was killed: {same}")
    model = json.loads((given.run / "model" / "recsys.json").read_text())["model"]["_target_"]
    figures = {"model": model, "rates": rows, "same_lists_after_a_kill": same}
    write(RESULTS / "serving.json", figures, packages=PACKAGES, seed=0)


def started(run: Path, core: int) -> subprocess.Popen[bytes]:
    """The service in a process on a core, after it has answered."""
    command = [sys.executable, "-m", "recsys.cli.main", "serve", str(run), "--device", "cpu"]
    service = subprocess.Popen(
        [*command, "--port", str(PORT)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        start_new_session=True,
    )
    while service.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health") as answer:
                answer.read()
            return service
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the service ended")


def lists_of(user: Any) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/recommend?user={user}") as answer:
        return json.load(answer)


async def load(rate: int, seconds: float, users: list[Any]) -> np.ndarray[Any, Any]:
    """Milliseconds from the moment at which each request was due to the end of its answer."""
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", PORT))
    begin = time.perf_counter() + 0.1

    async def one(number: int) -> float:
        due = begin + number / rate
        await asyncio.sleep(due - time.perf_counter())
        reader, writer = await free.get()
        path = f"/recommend?user={users[number % len(users)]}&k=10"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(h for h in head.lower().split(b"\r\n") if h.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        free.put_nowait((reader, writer))
        return 1_000 * (time.perf_counter() - due)

    latencies = await asyncio.gather(*(one(n) for n in range(round(rate * seconds))))
    while not free.empty():
        free.get_nowait()[1].close()
    return np.array(latencies)


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """That a process has taken so far."""
    values = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
