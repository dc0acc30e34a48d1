"""Golden pairs of an engine: what export measured, to be measured again on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.cache import MemoryCache
from murank.engine.encoder import Encoder
from murank.engine.manifest import Manifest, Precision, ScorerPart
from murank.engine.scorer import Scorer
from murank.engine.session import SessionSettings
from murank.images import Preprocessing, prepare

# Largest differences from what export measured on its CPU: of a feature's values, and of the
# log-odds of "No", relative to themselves where above 1. (mu itself would show nothing where a
# model is sure.) In int8 a float that comes out a little differently may round to the next step.
FEATURE_TOLERANCE = 1e-4
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2, "int8": 3e-1, "w8a16": 2e-2}


@dataclass(frozen=True)
class Replay:
    """One part of an engine, run again."""

    name: str
    largest: float  # difference from what export measured
    unit: str  # of that difference
    tolerance: float
    providers: list[str]

    @property
    def passed(self) -> bool:
        """Whether the difference is in tolerance (NaN is not)."""
        return self.largest <= self.tolerance


def replay(folder: Path, manifest: Manifest, settings: SessionSettings) -> list[Replay]:
    """Run the golden images through each part of a checked engine folder.

    Raises
    ------
    InputError
        The engine has no golden images, or they do not fit it.
    """
    if manifest.golden is None:
        raise InputError(f"{folder} has no golden images to replay; export it again")
    golden = _load(folder / manifest.golden)
    needed = {"encoder_images", "encoder_features"} if manifest.encoder is not None else set()
    needed |= {"query", "candidates", "log_odds"} if manifest.scorer is not None else set()
    for name in sorted(needed):
        if name not in golden:
            raise InputError(f"{folder / manifest.golden} lacks {name}; export the engine again")
    found = []
    if manifest.encoder is not None:
        encoder = Encoder(folder, manifest.encoder, settings)
        images = resized(golden["encoder_images"], manifest.encoder.preprocessing)
        features = encoder.features(images)
        largest = _largest(features, golden["encoder_features"])
        found.append(
            Replay(
                "encoder", largest, "features", FEATURE_TOLERANCE, list(encoder.session.providers)
            )
        )
    exported = manifest.exported_scorer  # whose temperature the golden answers have
    if exported is not None:
        scorer = golden_scorer(folder, exported, settings)
        found_odds = golden_log_odds(scorer, golden["query"], golden["candidates"])
        largest = _largest(found_odds, golden["log_odds"], relative=True)
        used = list(scorer.decoder.session.providers)
        found.append(Replay("scorer", largest, "log-odds", TOLERANCE[manifest.precision], used))
    return found


def golden_scorer(folder: Path, part: ScorerPart, settings: SessionSettings) -> Scorer:
    """Load the scorer without any cache of vision tokens."""
    return Scorer(
        folder, part, settings, max_pairs=part.max_pairs, vision_memory=MemoryCache(0),
        vision_disk=None,
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


def _largest(found: NDArray[Any], wanted: NDArray[Any], *, relative: bool = False) -> float:
    if found.shape != wanted.shape:
        raise InputError(f"golden values have shape {wanted.shape}, the engine gives {found.shape}")
    scale = np.maximum(1, np.abs(wanted)) if relative else 1
    with np.errstate(invalid="ignore"):  # NaN is in no tolerance
        return float((np.abs(found - wanted) / scale).max())


def _load(file: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, NDArray[Any]] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    return arrays
