"""What the engine's encoder tells of the pairs that its MLLM was asked about."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank.calibration.pair_answers import ScoredPairs
from murank.datasets.labels import Ids
from murank.datasets.market_style import parse_name
from murank.engine.encoder import Encoder
from murank.pairs.labelled import Pair
from murank.rerank.alignment import Alignment, Fitted, fit
from murank.rerank.methods import Progress
from murank.rerank.mu_auc import Told, cosine_distances, told_of
from murank.search import embed_images


@dataclass(frozen=True, eq=False)
class EmbeddedPairs:
    """Images of pairs, with features as they are and aligned."""

    rows: dict[str, int]  # of each image that can be used, by its name
    features: NDArray[np.float32]  # [N,D]
    aligned: NDArray[np.floating]  # [N,P]
    alignment: Fitted

    def compare(self, scored: ScoredPairs) -> Told | None:
        """Compare the answers with distances; None if the pairs are all of one kind."""
        named = [(pair.query, pair.candidate) for pair in scored.pairs]
        both = np.array([set(names) <= self.rows.keys() for names in named], bool)
        usable = [names for names, known in zip(named, both, strict=True) if known]
        rows = np.array([[self.rows[name] for name in names] for names in usable], np.int64)
        first, second = rows.reshape(-1, 2).T
        aligned = None
        if self.alignment.level != "off":
            aligned = cosine_distances(self.aligned, first, second)
        plain = cosine_distances(self.features, first, second)
        query = [names[0] for names in usable]
        return told_of(scored.log_odds[both], plain, aligned, scored.same[both], query)


def image_names(pairs: Sequence[Pair]) -> list[str]:
    """Return the images of pairs, each once."""
    return list(dict.fromkeys(name for pair in pairs for name in (pair.query, pair.candidate)))


def cameras_of(names: Sequence[str]) -> Ids | None:
    """Return camids by names in Market-1501 style; None unless all are."""
    labels = [parse_name(Path(name).name) for name in names]
    if None in labels:
        return None
    return np.array([label[1] for label in labels if label is not None], np.int64)


def embed_pairs(
    encoder: Encoder,
    pairs: Sequence[Pair],
    asked: Alignment,
    *,
    encoder_sha256: str | None,
    root: Path | None = None,
    progress: Progress | None = None,
) -> EmbeddedPairs:
    """Embed the images of pairs, and fit an alignment to them, without labels.

    Images that cannot be used are left out.

    Raises
    ------
    InputError
        What is asked for does not fit the features.
    """
    names, where = image_names(pairs), Path() if root is None else root
    skipped: dict[int, str] = {}
    features = embed_images(
        encoder, [where / name for name in names], progress=progress, skip=skipped.__setitem__
    )
    kept = [name for place, name in enumerate(names) if place not in skipped]
    camids = cameras_of(kept)
    fitted = fit(features, camids, asked, encoder_sha256=encoder_sha256)
    rows = {name: row for row, name in enumerate(kept)}
    return EmbeddedPairs(rows, features, fitted.apply(features, camids), fitted)
