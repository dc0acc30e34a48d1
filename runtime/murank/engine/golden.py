"""Golden pairs of an engine: what export measured, to be measured again on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.backends.choose import check_products, load_on_one
from murank.backends.plan_folder import has_plans
from murank.backends.protocol import Products, SessionSettings
from murank.backends.providers import Providers
from murank.engine.encoder import Encoder
from murank.engine.memory_cache import MemoryCache
from murank.engine.neighbours import ROWS_FLOAT16, encoder_fault, scorer_fault
from murank.engine.scorer import Scorer
from murank.folder.contents import EngineFiles
from murank.folder.manifest import Manifest, ScorerPart
from murank.folder.precision import Precision
from murank.images import Preprocessing, prepare

_WIDEST = 4  # bytes of a value of K/V: the prefixes of one query are kept in any case

# Largest differences from what export measured on its CPU: of a feature's values, and of the
# log-odds of "No", relative to themselves where above 1. (mu itself would show nothing where a
# model is sure.) Another machine adds up in another order and fuses other operators; what that
# makes of an answer follows from what is rounded in between:
# - floats alone: some hundred roundings, of 2**-11 in float16 and 2**-8 in bfloat16; the weights of
#   int4 and w8 are the same numbers everywhere, activations float16 and float32;
# - activations in steps (int8, fp8): a float that comes out a little differently may round to the
#   next one. Those of E4M3 are an eighth of a value: fewer floats move, but further;
# - w8a16 has two such terms, the second one 128 times finer.
FEATURE_TOLERANCE = 1e-4
TOLERANCE: Mapping[Precision, float] = {
    "fp32": 1e-3, "fp16": 5e-2, "bf16": 4e-1, "w8": 1e-3, "int8": 3e-1, "w8a16": 2e-2,
    "int8-qdq": 3e-1, "fp8": 5e-1, "int4": 5e-2,
}  # fmt: skip
# Of OpenVINO's products: as of an engine that has such floats throughout.
PRODUCTS_TOLERANCE: Mapping[Products, float] = {
    "float32": 0.0, "fp16": TOLERANCE["fp16"], "bf16": TOLERANCE["bf16"],
}  # fmt: skip


@dataclass(frozen=True)
class Replay:
    """One part of an engine, run again."""

    name: str
    largest: float  # difference from what export measured
    unit: str  # of that difference
    tolerance: float
    providers: list[str]
    fault: str | None = None  # what is wrong with its answers, whatever export measured

    @property
    def passed(self) -> bool:
        """Whether the difference is in tolerance (NaN is not), and the answers have no fault."""
        return self.largest <= self.tolerance and self.fault is None


def replay(folder: Path, manifest: Manifest, settings: SessionSettings) -> list[Replay]:
    """Run the golden images through each part of a checked engine folder.

    Raises
    ------
    InputError
        The engine has no golden images, they do not fit it, or its precision does not run with
        these providers.
    MachineError
        onnxruntime or a provider asked for is not here.
    """
    check_products(settings.providers, settings.products)
    if manifest.golden is None:
        raise InputError(f"{folder} has no golden images to replay; export it again")
    files = EngineFiles(folder, manifest)
    golden = files.tensors(manifest.golden)
    needed = {"encoder_images", "encoder_features"} if manifest.encoder is not None else set()
    needed |= {"query", "candidates", "log_odds"} if manifest.scorer is not None else set()
    for name in sorted(needed):
        if name not in golden:
            raise InputError(f"{folder / manifest.golden} lacks {name}; export the engine again")
    exported = manifest.exported_scorer  # whose temperature the golden answers have

    def load(providers: Providers) -> tuple[Encoder | None, Scorer | None]:
        how, part = replace(settings, providers=providers), manifest.encoder
        return (
            None if part is None else Encoder(files, part, how),
            None if exported is None else golden_scorer(files, exported, how),
        )

    precision = "fp32" if exported is None else manifest.precision
    (encoder, scorer), _ = load_on_one(
        settings.providers, precision, folder, load,
        has_plans=has_plans(manifest, settings.plans),
    )  # fmt: skip
    replays = []
    if encoder is not None:
        images = resized(golden["encoder_images"], encoder.part.preprocessing)
        features = encoder.features(images)
        largest = _largest(features, golden["encoder_features"])
        # Engines of before do not say; their features may be those of float16.
        rows = float(np.max(golden.get("encoder_rows", ROWS_FLOAT16), initial=0))
        replays.append(
            Replay(
                "encoder", largest, "features", FEATURE_TOLERANCE, list(encoder.session.providers),
                encoder_fault(encoder, images, min(rows, ROWS_FLOAT16)),
            )
        )  # fmt: skip
    if scorer is not None:
        found_odds = golden_log_odds(scorer, golden["query"], golden["candidates"])
        largest = _largest(found_odds, golden["log_odds"], relative=True)
        used = list(scorer.decoder.session.providers)
        tolerance = max(TOLERANCE[manifest.precision], PRODUCTS_TOLERANCE[settings.products])
        how_resized = scorer.part.preprocessing
        (query,) = resized(golden["query"], how_resized)
        candidates = list(resized(golden["candidates"], how_resized))
        fault = scorer_fault(scorer, query, candidates, tolerance)
        replays.append(Replay("scorer", largest, "log-odds", tolerance, used, fault))
    return replays


def golden_scorer(files: EngineFiles, part: ScorerPart, settings: SessionSettings) -> Scorer:
    """Load the scorer without any cache of vision tokens."""
    return Scorer(
        files, part, settings, item_bytes=_WIDEST, max_pairs=part.max_pairs,
        vision_memory=MemoryCache(0), vision_disk=None,
    )  # fmt: skip


def golden_log_odds(
    scorer: Scorer, query: NDArray[np.uint8], candidates: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Ask about images [1,3,h,w] and [K,3,h,w] of any size, from resizing to temperature: [K]."""
    how = scorer.part.preprocessing
    (asked,) = resized(query, how)
    return scorer.log_odds(scorer.logits(asked, list(resized(candidates, how))))


def resized(images: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.uint8]:
    """[n,3,h,w] -> [n,3,H,W], as images from anywhere are resized."""
    return np.stack([prepare(image.transpose(1, 2, 0), how).pixels for image in images])


def _largest(answers: NDArray[Any], wanted: NDArray[Any], *, relative: bool = False) -> float:
    if answers.shape != wanted.shape:
        raise InputError(
            f"golden values have shape {wanted.shape}, the engine gives {answers.shape}"
        )
    scale = np.maximum(1, np.abs(wanted)) if relative else 1
    with np.errstate(invalid="ignore"):  # NaN is in no tolerance
        return float((np.abs(answers - wanted) / scale).max())
