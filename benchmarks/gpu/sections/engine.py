"""Checkpoint, engines and float32 answers: what the scoring sections need, kept in --work."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu.context import Context, need, need_driver
from gpu.rows import CannotRun, Row
from numpy.typing import NDArray

from murank.folder.manifest import ScorerPart, read_manifest
from murank.folder.precision import Precision
from murank.prompt import Layout

PARITY_PAIRS = 6
QUERIES_AT_ONCE = 8
QUERY_SEED, CANDIDATE_SEED = 1000, 1  # of benchmarks/scoring.py's images
LAYOUT: Layout = "prefix_first"


@dataclass(frozen=True)
class Made:
    """Where things are."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Of random weights."""
        return self.folder / "checkpoint"

    def engine(self, precision: Precision) -> Path:
        """In prefix_first."""
        return self.folder / f"engine-{precision}"

    @property
    def reference(self) -> Path:
        """Logits [P,2] of PyTorch in float32 on the CPU."""
        return self.folder / "reference.npy"


def made(context: Context) -> Made:
    """Where this run's are, whether they are there or not."""
    return Made(context.work / context.model)


def need_made(context: Context) -> Made:
    """Raise CannotRun unless checkpoint and reference are there."""
    found = made(context)
    for what in (found.checkpoint, found.reference):
        if not what.exists():
            raise CannotRun(f"the section engine did not make the {what.stem}")
    return found


def shapes_of(where: Made, context: Context) -> ScorerPart:
    """Return the scorer of any engine that was made: they differ in precision only."""
    for precision in context.precisions:
        if where.engine(precision).exists():
            part = read_manifest(where.engine(precision)).scorer
            if part is not None:
                return part
    raise CannotRun("the section engine made no engine")


def rows(context: Context) -> Iterator[Row]:
    """Make what is missing; one row a step, with its seconds."""
    if context.on_gpu:
        need_driver()  # without one it would be made for nothing
    need("torch", "transformers", "onnx", "onnxscript", "peft")
    where = made(context)
    where.folder.mkdir(parents=True, exist_ok=True)
    steps: tuple[tuple[str, Path, Callable[[Path], None]], ...] = (
        ("checkpoint", where.checkpoint, lambda to: make_checkpoint(to, context)),
        ("reference", where.reference, lambda to: np.save(to, reference_logits(where.checkpoint))),
        *(
            (f"engine, {one}", where.engine(one), partial(export, where.checkpoint, one))
            for one in context.precisions
        ),
    )
    for name, path, make in steps:
        if path.exists():
            yield Row(what=f"{context.model}: {name}", figure="kept from an earlier run")
            continue
        start = time.perf_counter()
        aside = path.with_name(f"part-{path.name}")
        if aside.is_dir():  # of a run that was stopped
            shutil.rmtree(aside)
        make(aside)
        aside.rename(path)
        seconds = time.perf_counter() - start
        yield Row(what=f"{context.model}: {name}", figure=f"{seconds:.1f} s")


def make_checkpoint(folder: Path, context: Context) -> None:
    """Random weights of the architecture asked for."""
    import random_checkpoint

    if context.config is not None:
        random_checkpoint.make_from_config(folder, context.config)
    else:
        random_checkpoint.make_checkpoint(folder, "qwen2_vl", context.model)


def export(checkpoint: Path, precision: Precision, folder: Path) -> None:
    """In prefix_first, with room for several queries in a run."""
    from scoring import CANDIDATES

    from murank_export import ExportSettings, export_engine

    settings = ExportSettings(
        folder, checkpoint, layout=LAYOUT, precision=precision, parity_pairs=2,
        max_pairs=QUERIES_AT_ONCE * CANDIDATES,
    )  # fmt: skip
    export_engine(settings)


def reference_logits(checkpoint: Path) -> NDArray[np.float32]:
    """Answers [P,2] of PyTorch in float32 on the CPU to whole prompts."""
    from scoring import pixels

    from murank.prompt import default_template
    from murank_export.mllm.checkpoint import load_checkpoint
    from murank_export.mllm.reference import ask
    from murank_export.mllm.tokens import answer_ids, prompt_tokens

    loaded = load_checkpoint(checkpoint)
    grid, _ = loaded.grid(None)
    tokens = prompt_tokens(loaded, default_template(), LAYOUT)
    query, candidates = parity_images(pixels)
    found = ask(loaded, tokens, grid, answer_ids(loaded.tokenizer), query, list(candidates))
    return found.logits


def parity_images(pixels: Any) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A query [3,H,W] and the first candidates [P,3,H,W] of those that are timed."""
    from scoring import CANDIDATES

    return pixels(1, QUERY_SEED)[0], pixels(CANDIDATES, CANDIDATE_SEED)[:PARITY_PAIRS]


def parity(what: str, found: NDArray[Any], reference: Path, precision: Precision = "fp16") -> Row:
    """Compare logits [P,2] of No and Yes, by the exporter's own rule for the precision."""
    from murank import ParityError
    from murank_export.engine.parity import scorer_parity

    wanted = np.load(reference)
    try:
        told = scorer_parity(wanted, np.asarray(found, np.float32), 1.0, precision)
    except ParityError as error:
        return Row(what=what, state="wrong", note=str(error))
    agreement = told["spearman"]
    rank = "not defined" if agreement is None else f"{agreement:.3f}"
    return Row(
        what=what,
        state="right",
        figure=f"log-odds differ by {told['max_log_odds']:.1e}",
        note=f"rank correlation {rank}, mu differs by {told['max_abs_mu']:.1e}; "
        f"{len(wanted)} pairs against float32 on the CPU",
    )
