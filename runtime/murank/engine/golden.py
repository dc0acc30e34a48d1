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

# Largest difference of a mu or a feature value from what export measured on its CPU.
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-2}


@dataclass(frozen=True)
class Replay:
    """One part of an engine, run again."""

    name: str
    largest: float  # absolute difference from what export measured
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
    needed |= {"query", "candidates", "logits"} if manifest.scorer is not None else set()
    for name in sorted(needed):
        if name not in golden:
            raise InputError(f"{folder / manifest.golden} lacks {name}; export the engine again")
    found = []
    if manifest.encoder is not None:
        encoder = Encoder(folder, manifest.encoder, settings)
        features = encoder.features(golden["encoder_images"])
        largest = _largest(features, golden["encoder_features"])
        # The encoder is float32 whatever the MLLM is.
        found.append(Replay("encoder", largest, TOLERANCE["fp32"], list(encoder.session.providers)))
    if manifest.scorer is not None:
        scorer = golden_scorer(folder, manifest.scorer, settings)
        logits = scorer.logits(golden["query"], list(golden["candidates"]))
        largest = _largest(scorer.mu(logits), scorer.mu(golden["logits"]))
        used = list(scorer.decoder.session.providers)
        found.append(Replay("scorer", largest, TOLERANCE[manifest.precision], used))
    return found


def golden_scorer(folder: Path, part: ScorerPart, settings: SessionSettings) -> Scorer:
    """Load the scorer without any cache of vision tokens."""
    return Scorer(
        folder, part, settings, max_pairs=part.max_pairs, vision_memory=MemoryCache(0),
        vision_disk=None,
    )  # fmt: skip


def _largest(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    if found.shape != wanted.shape:
        raise InputError(f"golden values have shape {wanted.shape}, the engine gives {found.shape}")
    return float(np.abs(found - wanted).max())


def _load(file: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, NDArray[Any]] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    return arrays
