"""Export and run a real architecture at its real size, with random weights: time, memory, disk.

    python benchmarks/real_size.py --config DIR --dtype fp16 int8 --work build/real
    python benchmarks/real_size.py --config DIR --dtype fp16 --openvino    and in OpenVINO

`--config` is a folder with config.json and tokenizer files of a Qwen-VL checkpoint (its weights are
not needed). Every step is a process of its own; the peak is its largest resident set. A query is
asked in the prefix_first layout with 10 candidates whose vision tokens are known, as an appliance
would. Behind each query stands what `murank plan` says: the floor by this CPU's own rates, its
prediction, and the stages measured once more. `--openvino` asks again with providers="openvino",
in float32 and, where the CPU has it, in bf16. The 2B architecture wants 24 GiB of memory and, per
dtype, up to 10 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np

from murank import MachineError
from murank.folder.precision import Precision

CANDIDATES, ROUNDS = 10, 3
PRODUCTS = ("float32", "bf16")


def checkpoint(config: Path, folder: Path) -> dict[str, float]:
    """Write the checkpoint."""
    from random_checkpoint import make_from_config

    make_from_config(folder, config)
    return {}


def export(folder: Path, engine: Path, dtype: str) -> dict[str, float]:
    """Export it."""
    from murank_export import ExportSettings, export_engine

    settings = ExportSettings(
        engine, folder, layout="prefix_first", precision=dtype, parity_pairs=4  # type: ignore[arg-type]
    )  # fmt: skip
    made = export_engine(settings)
    return {
        "disk GiB": made.manifest.size / 2**30,
        "decoder graph s": made.seconds["decoder graph"],
    }


def ask(engine: Path, threads: int, providers: str, products: str) -> dict[str, float]:
    """Load an engine and score one query after another."""
    from scoring import memory, pixels

    from murank import Engine

    start = time.perf_counter()
    loaded = Engine.from_pretrained(
        engine, providers=providers, products=products, threads=threads, parts=["scorer"]  # type: ignore[arg-type]
    )  # fmt: skip
    figures = {"load s": time.perf_counter() - start, "loaded GiB": memory("VmRSS")}
    scorer = loaded.scorer
    assert scorer is not None
    candidates = list(pixels(CANDIDATES, 1))
    first = time.perf_counter()
    known = scorer.vision.of(candidates)
    figures["vision s an image"] = (time.perf_counter() - first) / CANDIDATES
    times: dict[str, list[float]] = {"prefill s": [], "score s": []}
    for seed in range(ROUNDS):
        query = scorer.vision.of(list(pixels(1, 10 + seed)))
        mark = time.perf_counter()
        prefix = scorer.decoder.prefill(query)
        times["prefill s"].append(time.perf_counter() - mark)
        mark = time.perf_counter()
        logits = scorer.decoder.logits(prefix, known[None])
        times["score s"].append(time.perf_counter() - mark)
        assert np.isfinite(logits).all()
    return figures | {name: statistics.median(values) for name, values in times.items()}


STEPS: dict[str, Callable[..., dict[str, float]]] = {
    "checkpoint": lambda config, folder: checkpoint(Path(config), Path(folder)),
    "export": lambda folder, engine, dtype: export(Path(folder), Path(engine), dtype),
    "ask": lambda engine, threads, *how: ask(Path(engine), int(threads), *how),
}


def in_child(step: str, *arguments: object) -> dict[str, float]:
    """Run one step in a process of its own; add its wall time and peak memory."""
    print(f"{step} {' '.join(map(str, arguments))}", file=sys.stderr)
    command = [sys.executable, __file__, "--step", step, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_step(step: str, *arguments: str) -> None:
    """Print the figures of a step as one JSON line."""
    start = time.perf_counter()
    try:
        figures = STEPS[step](*arguments)
    except MachineError as error:
        print(json.dumps({"cannot": str(error)}))
        return
    figures["wall s"] = time.perf_counter() - start
    figures["peak GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(figures))


def show(title: str, figures: dict[str, Any]) -> None:
    """Print one step's figures, or why there are none."""
    if "cannot" in figures:
        print(f"{title:<16} not here: {figures['cannot']}", flush=True)
        return
    cells = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
    print(f"{title:<16} {cells}", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path)
    parser.add_argument("--dtype", nargs="+", choices=get_args(Precision), default=["fp16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--openvino", action="store_true", help="ask in OpenVINO too")
    parser.add_argument("--work", type=Path, help="folder to keep things in (temporary)")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(*arguments.step)
        return
    if arguments.config is None:
        parser.error("--config is needed")
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        folder = work / "checkpoint"
        if not folder.exists():
            show("checkpoint", in_child("checkpoint", arguments.config, folder))
        for dtype in arguments.dtype:
            engine = work / f"engine-{dtype}"
            if not engine.exists():
                show(f"export {dtype}", in_child("export", folder, engine, dtype))
            show(f"query {dtype}", in_child("ask", engine, arguments.threads, "cpu", "float32"))
            for products in PRODUCTS if arguments.openvino else ():
                figures = in_child("ask", engine, arguments.threads, "openvino", products)
                show(f"query {dtype}, OpenVINO {products}", figures)
            options = ["--board", "cpu", "--threads", str(arguments.threads), "--check"]
            options += ["--candidates", str(CANDIDATES)]
            subprocess.run([sys.executable, "-m", "murank", "plan", engine, *options], check=True)


if __name__ == "__main__":
    main()
