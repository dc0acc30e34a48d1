"""A fresh process that loads an engine and answers two queries; prints what each step took.

python -m murank.bench.cold_process JOB.json STARTED, where STARTED is the parent's monotonic clock.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import murank_kernels.online.online_k_reciprocal  # noqa: F401 - searching needs it: its import counts as one
from murank._exceptions import MurankError
from murank.backends.onnx.session import onnxruntime
from murank.engine.engine import Engine
from murank.images import DecodeLimits
from murank.search import Searcher

STEPS = ("import_ms", "load_ms", "gallery_ms", "first_ms", "second_ms")


def main(arguments: Sequence[str]) -> None:
    """Do it, and print a JSON object."""
    file, started = arguments
    job = json.loads(Path(file).read_text())
    onnxruntime()
    print(json.dumps(measure(job, float(started), clock=time.monotonic)))


def measure(
    job: Mapping[str, Any], started: float, *, clock: Callable[[], float]
) -> dict[str, float]:
    """Return milliseconds by step, from `started` on the clock."""
    moments = [started, clock()]
    engine = Engine.from_pretrained(
        job["engine"], providers=job["providers"], products=job["products"], plans=job["plans"],
        threads=job["threads"], parts=job["parts"], sha256=job["sha256"], bits=job["bits"],
        decode_limits=DecodeLimits(**job["decode_limits"]),
    )  # fmt: skip
    moments.append(clock())
    ask = _searching(engine, job) if engine.encoder is not None else _scoring(engine, job)
    moments.append(clock())
    for query in job["queries"]:
        ask(query)
        moments.append(clock())
    spent = [1e3 * (after - before) for before, after in pairwise(moments)]
    return dict(zip(STEPS, spent, strict=True))


def _searching(engine: Engine, job: Mapping[str, Any]) -> Callable[[str], object]:
    searcher = Searcher(
        engine, np.load(job["features"]), job["gallery"], candidates=job["candidates"],
        method=job["method"], camids=job["camids"], align_cameras=job["align_cameras"],
    )  # fmt: skip
    return searcher.search


def _scoring(engine: Engine, job: Mapping[str, Any]) -> Callable[[str], object]:
    candidates = job["gallery"][: job["candidates"]]
    return lambda query: engine.mu(query, candidates)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MurankError as error:
        print(error, file=sys.stderr)  # one plain line
        sys.exit(error.exit_code)
