"""What mining did: mining.json, and what is printed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import __version__
from murank_export.adapt.mining import Mined, MinedPairs
from murank_export.adapt.mining_settings import MiningSettings
from murank_export.adapt.mining_source import Labelled

_QUARTILES = ("min", "q1", "median", "q3", "max")
_KINDS = ("positives", "negatives")


def mining_record(labelled: Labelled, mined: Mined, settings: MiningSettings) -> dict[str, Any]:
    """Return what was read, how pairs were chosen, how many, and how similar they are."""
    return {
        "murank_version": __version__,
        "origin": labelled.origin,
        "settings": asdict(settings),
        "images": len(labelled.paths),
        "left_out": labelled.left_out,
        "people": {"train": len(mined.train_ids), "val": len(mined.val_ids)},
        "pairs": {name: _counts(pairs) for name, pairs in mined.parts.items()},
    }


def summary(record: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the lines for a person."""
    people = record["people"]
    lines = [
        f"{record['images']:,} images; {people['train']:,} people train, {people['val']:,} validate"
    ]
    lines.append(f"{'':<24}{'queries':>9}{'pairs':>11}   similarity: {'  '.join(_QUARTILES)}")
    lines += [
        _line(f"{name} {kind}".replace("_", " "), counts[kind])
        for name, counts in record["pairs"].items()
        for kind in _KINDS
    ]
    how = record["alignment"]
    if how["level"] != "off":
        lines.append(f"candidates are of features aligned to cameras ({how['level']})")
    return [*lines, f"pairs: {folder}"]


def _counts(pairs: MinedPairs) -> dict[str, Any]:
    kinds = dict(zip(_KINDS, (pairs.match, ~pairs.match), strict=True))
    return {
        "queries": len(np.unique(pairs.queries)),
        **{kind: _kind(pairs, chosen) for kind, chosen in kinds.items()},
    }


def _kind(pairs: MinedPairs, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    similarity = pairs.similarity[chosen]
    return {
        "queries": len(np.unique(pairs.queries[chosen])),
        "pairs": int(chosen.sum()),
        "similarity": _quartiles(similarity) if len(similarity) else None,
    }


def _quartiles(similarity: NDArray[np.float64]) -> dict[str, float]:
    values = np.quantile(similarity, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return dict(zip(_QUARTILES, values, strict=True))


def _line(name: str, counts: Mapping[str, Any]) -> str:
    found: Sequence[float] = () if counts["similarity"] is None else counts["similarity"].values()
    numbers = "  ".join(f"{value:.3f}" for value in found)
    return f"{name:<24}{counts['queries']:>9,}{counts['pairs']:>11,}   {numbers}".rstrip()
