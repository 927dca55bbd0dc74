"""One side of a benchmark, in a process of its own: `race.Side` starts it and tells it what to do, a line at a time.

It imports neither jax nor torch before it knows how many threads it may use.
"""

import importlib
import json
import os
import resource
import sys
import time

import numpy as np


def main() -> None:
    module, name, threads, devices, case = *sys.argv[1:3], *map(int, sys.argv[3:5]), json.loads(sys.argv[5])
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if name == "peer" and case.get("packages", True):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
    if devices > 1:
        import jax

        from rmo.runtime import sharding

        jax.set_mesh(sharding.make_mesh())
    run, answers = getattr(importlib.import_module(f"tests.benchmarks.{module}"), name)(case)
    started = time.perf_counter()
    run()
    reply = {"first": time.perf_counter() - started}
    while True:
        # KiB on Linux, bytes on a Mac.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps(reply | {"peak_bytes": peak}), file=say, flush=True)
        word, *rest = sys.stdin.readline().split() or ["stop"]
        if word == "stop":
            return
        if word == "answers":
            np.savez(rest[0], **answers())
            reply = {}
            continue
        started = time.perf_counter()
        parts = run()
        parts = dict(parts or {})  # a side that times its own work, without its preparations, says so
        reply = {"seconds": parts.pop("seconds", time.perf_counter() - started), "parts": parts}


if __name__ == "__main__":
    main()
