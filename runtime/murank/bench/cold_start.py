"""Cold start: fresh processes, each timed from its birth to its second answer."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from murank._exceptions import InputError, MachineError
from murank.backends.protocol import Products
from murank.backends.providers import Providers
from murank.bench.bench_settings import BenchSettings
from murank.bench.schema import ColdFigures
from murank.bench.workload import NewQueries, Workload, gallery_features, random_features
from murank.engine.engine import Part
from murank.folder.manifest import Manifest
from murank.images import DEFAULT_LIMITS, DecodeLimits

_SHOWN = 300  # characters of what a process said when it failed
_QUERIES = 2


def cold_job(
    folder: Path,
    engine: Path,
    manifest: Manifest,
    sha256: str,
    workload: Workload,
    settings: BenchSettings,
    *,
    parts: Sequence[Part],
    providers: Providers,
    threads: int | None,
    products: Products = "float32",
    plans: Path | None = None,
    bits: int | None = None,
    decode_limits: DecodeLimits = DEFAULT_LIMITS,
) -> Path:
    """Write what a fresh process is to do into `folder`, and return the file.

    The gallery's features are drawn, not computed: no engine is loaded here as yet.
    """
    features = None
    if manifest.encoder is not None:
        asked = random_features(settings.asked, manifest.encoder.dim, settings.seed)
        features = str(folder / "features.npy")
        np.save(features, gallery_features(asked, len(workload.pool), settings))
    queries = NewQueries(folder, workload.asked, settings.seed)
    camids = workload.camids(settings.gallery_size)
    job = {
        "engine": str(engine), "sha256": sha256, "parts": list(parts),
        "providers": providers, "products": products,
        "plans": None if plans is None else str(plans), "threads": threads,
        "features": features,
        "candidates": settings.candidates, "method": settings.method,
        "gallery": [str(path) for path in workload.gallery(settings.gallery_size)],
        "queries": [str(path) for path in queries.take(_QUERIES)],
        "camids": None if camids is None else camids.tolist(),
        "align_cameras": settings.align_cameras,
        "bits": bits, "decode_limits": decode_limits.to_json(),
    }  # fmt: skip
    file = folder / "cold.json"
    file.write_text(json.dumps(job))
    return file


def cold_runs(job: Path, runs: int) -> Iterator[Mapping[str, float]]:
    """Yield milliseconds by step, a fresh process each.

    Raises
    ------
    InputError, MachineError
        A process failed, as the engine would have failed here.
    """
    for _ in range(runs):
        command = [
            sys.executable,
            "-m",
            "murank.bench.cold_process",
            str(job),
            repr(time.monotonic()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            if done.returncode == InputError.exit_code:
                raise InputError(last)
            if done.returncode == MachineError.exit_code:
                raise MachineError(last)
            raise MachineError(
                f"a fresh process could not answer; pass --skip-cold to do without: {last[:_SHOWN]}"
            )
        steps: dict[str, float] = json.loads(done.stdout)
        yield steps


def cold_figures(runs: Sequence[Mapping[str, Any]]) -> ColdFigures:
    """Return the medians of at least one run."""
    median = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
    before_second = [sum(run.values()) - run["second_ms"] for run in runs]
    return ColdFigures(runs=len(runs), answered_ms=float(np.median(before_second)), **median)
