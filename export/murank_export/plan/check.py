"""The stages of a plan, run on this machine: what they really take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.engine.decoder import Decoder
from murank.engine.encoder import Encoder
from murank.engine.engine import Engine
from murank.folder.batches import VISION_BATCH
from murank.machine.hardware import peak_bytes
from murank_export.plan.host import fastest, forget_peak
from murank_export.plan.prediction import Prediction, Workload
from murank_export.plan.work import run_sizes

_REPETITIONS = 3  # at least


@dataclass(frozen=True)
class Checked:
    """What was measured."""

    seconds: Mapping[str, float]  # the fastest, by title of the stage; those that were run
    grown_bytes: int | None  # of this process, by loading and running; None: not known


def check_on_this_cpu(folder: Path, plan: Prediction, threads: int | None) -> Checked:
    """Load the engine and run each graph's stages a few times on made images.

    Raises
    ------
    InputError
        The folder is not what its manifest says.
    MachineError
        onnxruntime is not installed, or memory runs out.
    """
    before = forget_peak()
    engine = Engine.from_pretrained(
        folder, providers="cpu", threads=threads, max_pairs=plan.workload.max_pairs
    )
    titles = {
        ("candidates" if one.work.cached else one.work.stage): one.work.title for one in plan.stages
    }
    seconds = _timed(_of_graphs(engine, plan.workload, titles))
    after = peak_bytes()
    if engine.encoder is not None:
        seconds |= _timed(_ranking(plan.workload, engine.encoder.part.dim, titles))
    grown = None if before is None or after is None else max(0, after - before)
    return Checked(seconds, grown)


def _timed(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    return {title: fastest(run, least=_REPETITIONS) for title, run in runs.items()}


def _of_graphs(
    engine: Engine, workload: Workload, titles: Mapping[str, str]
) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {}
    if engine.encoder is not None:
        found[titles["embed"]] = _encoder(engine.encoder)
    if engine.scorer is not None:
        count, pairs = workload.candidates, workload.max_pairs
        vision, decoder = engine.scorer.vision, engine.scorer.decoder
        how = engine.scorer.part.preprocessing
        pixels = _pixels(count, how.height, how.width)

        def see(images: NDArray[np.uint8]) -> NDArray[Any]:
            (tokens,) = vision.session.run({"images": images}, ["tokens"])
            values: NDArray[Any] = tokens.numpy()
            return values

        found[titles["vision"]] = lambda: see(pixels[:1])
        found[titles["candidates"]] = lambda: [
            see(pixels[start : start + VISION_BATCH]) for start in range(0, count, VISION_BATCH)
        ]
        tokens = np.resize(see(pixels[:1]), (count, *vision.shape))
        sizes = run_sizes(count, pairs or engine.scorer.part.max_pairs)
        found |= _decoder(decoder, tokens, sizes, titles)
    return found


def _decoder(
    decoder: Decoder, tokens: NDArray[Any], sizes: list[int], titles: Mapping[str, str]
) -> dict[str, Callable[[], object]]:
    prefix = decoder.prefill(tokens[:1])
    return {
        titles["prefill"]: lambda: decoder.prefill(tokens[:1]),
        titles["score"]: lambda: [decoder.logits(prefix, tokens[None, :n]) for n in sizes],
    }


def _encoder(encoder: Encoder) -> Callable[[], object]:
    how = encoder.part.preprocessing
    pixels = _pixels(1, how.height, how.width)
    return lambda: encoder.features(pixels)


def _ranking(
    workload: Workload, dim: int, titles: Mapping[str, str]
) -> dict[str, Callable[[], object]]:
    """Search and re-ranking in a gallery of random features."""
    from murank_kernels import OnlineKReciprocal

    random = np.random.default_rng(0)
    features = random.standard_normal((workload.gallery_size, dim), np.float32)
    gallery, query = OnlineKReciprocal(features), features[0] + 1
    asked = gallery.query(query)
    candidates = asked.nearest(workload.candidates)[1]
    mu = random.random(workload.candidates)
    return {
        titles["retrieve"]: lambda: gallery.query(query).nearest(workload.candidates),
        titles["rerank"]: lambda: asked.fused(mu, candidates).reranked(),
    }


def _pixels(count: int, height: int, width: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, 3, height, width), np.uint8)
