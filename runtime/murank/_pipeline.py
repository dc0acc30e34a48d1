"""From features to a ranking: one pass over the distances evaluates and keeps the k best."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._alignment import OFF, Aligned, Alignment
from murank._features import FeatureSet
from murank._labels import Labels
from murank._methods import Progress, distance_blocks, kernel_errors, used_parameters
from murank._metrics import metrics_of
from murank._mu import MuDistances
from murank._ranking import Ranking
from murank._version import __version__

SCHEMA_VERSION = 1
NOTICE = "Rows are candidate matches ordered by distance; a person decides whether they match."


@dataclass(frozen=True)
class Settings:
    """What to compute."""

    method: str
    parameters: Mapping[str, Any]  # those given; the others keep the kernel's defaults
    protocol: Mapping[str, Any]  # keyword arguments of RankEvaluator
    top_k: int = 50
    device: str = "cpu"
    alignment: Alignment = OFF


@dataclass(frozen=True)
class Outcome:
    """A ranking and how it came about."""

    ranking: Ranking
    before: Ranking | None  # by the encoder alone, where it was asked for
    summary: dict[str, Any]  # JSON-ready


@dataclass
class Clock:
    """Wall seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def rerank(
    features: FeatureSet,
    aligned: Aligned,
    mu: MuDistances | None,
    settings: Settings,
    *,
    gallery_mu: MuDistances | None = None,
    clock: Clock,
    progress: Callable[[str], Progress] | None = None,
    keep_before: bool = False,
) -> Outcome:
    """Re-rank what was aligned, and evaluate every step where labels exist.

    `gallery_mu` is mu between gallery images, [G,M], for a method that takes it. With `keep_before`
    the ranking by the encoder alone is kept, too.

    Raises
    ------
    InputError, MachineError
        The kernels refuse an argument; raised before any work.
    """
    named: Callable[[str], Progress | None] = progress or (lambda _name: None)
    with clock.stage("prepare"):
        blocks = distance_blocks(
            settings.method, aligned.features, mu, gallery_mu=gallery_mu, device=settings.device,
            progress=named(settings.method), **settings.parameters,
        )  # fmt: skip
        reason = _why_not_evaluated(features, settings)
    labels = features.labels if reason is None else None

    def by_encoder(some: FeatureSet, name: str, best: _Best | None) -> dict[str, Any] | None:
        plain = distance_blocks("none", some, device=settings.device, progress=named(name))
        return _walk(plain, _evaluator(labels, settings), best)

    before = between = before_best = None
    changed = settings.method != "none" or aligned.level != "off"
    if changed and (labels is not None or keep_before):
        with clock.stage("encoder"):
            before_best = _Best(features, settings.top_k) if keep_before else None
            before = by_encoder(features, "encoder", before_best)
    if aligned.level != "off" and settings.method != "none" and labels is not None:
        with clock.stage("aligned"):
            between = by_encoder(aligned.features, "aligned", None)
    with clock.stage("rerank"):
        best = _Best(features, settings.top_k)
        after = _walk(blocks, _evaluator(labels, settings), best)
    if aligned.level != "off" and settings.method == "none":
        between = after
    summary = {
        **_description(features, mu, gallery_mu, settings),
        "alignment": aligned.to_json(settings.alignment),
        "metrics": {"before": before or after, "aligned": between, "after": after},
        "not_evaluated": reason,
        "notes": [
            *([] if labels is None else labels.junk_notes(settings.protocol)),
            *aligned.notes,
        ],
        "seconds": clock.seconds,
    }
    ranking = best.ranking(features)
    if not keep_before:
        return Outcome(ranking, None, summary)
    return Outcome(ranking, before_best.ranking(features) if before_best else ranking, summary)


def check_settings(
    features: FeatureSet,
    mu: MuDistances | None,
    settings: Settings,
    *,
    gallery_mu: MuDistances | None = None,
) -> None:
    """Raise what `rerank` would raise about the settings, before there is anything to re-rank.

    Features and mu may be stand-ins of the right shapes.
    """
    distance_blocks(
        settings.method, features, mu, gallery_mu=gallery_mu, device=settings.device,
        **settings.parameters,
    )  # fmt: skip


class _Best:
    """The k best of each query, filled block by block."""

    def __init__(self, features: FeatureSet, top_k: int) -> None:
        shape = (features.num_query, min(top_k, features.num_gallery))
        self._indices = np.empty(shape, np.int64)
        self._distances = np.empty(shape, np.float32)

    def update(self, first_query: int, distances: NDArray[np.float32]) -> None:
        from murank_kernels import smallest_k

        part = slice(first_query, first_query + len(distances))
        self._distances[part], self._indices[part] = smallest_k(distances, self._indices.shape[1])

    def ranking(self, features: FeatureSet) -> Ranking:
        query, gallery = features.query, features.gallery
        return Ranking(
            self._indices, self._distances, query.paths, gallery.paths,
            query.pids, gallery.pids, query.camids, gallery.camids,
        )  # fmt: skip


def _walk(blocks: Any, evaluator: Any, best: _Best | None) -> dict[str, Any] | None:
    with kernel_errors():
        for first_query, distances in blocks:
            if evaluator is not None:
                evaluator.update(first_query, distances)
            if best is not None:
                best.update(first_query, distances)
            del distances  # before the next block is made
        if evaluator is None:
            return None
        evaluation = evaluator.result()
    return {**metrics_of(evaluation), "num_valid": int(evaluation.num_valid)}


def _evaluator(labels: Labels | None, settings: Settings) -> Any:
    if labels is None:
        return None
    from murank_kernels import RankEvaluator

    with kernel_errors():
        return RankEvaluator(*labels.as_arguments(), **{"junk": "keep", **settings.protocol})


def _why_not_evaluated(features: FeatureSet, settings: Settings) -> str | None:
    labels = features.labels
    if labels is None:
        if features.unlabelled is not None:
            return f"not evaluated: {features.unlabelled}"
        missing = [key for key in ("pids", "camids") if getattr(features, key) is None]
        return f"not evaluated: the features have no {' and no '.join(missing)}"
    if not labels.counted(settings.protocol).num_matches().any():
        return "not evaluated: no query has a gallery image of its pid from another camera"
    return None


def _description(
    features: FeatureSet,
    mu: MuDistances | None,
    gallery_mu: MuDistances | None,
    settings: Settings,
) -> dict[str, Any]:
    given = {**settings.parameters, "device": settings.device}
    with_mu = mu is not None or gallery_mu is not None
    return {
        "schema_version": SCHEMA_VERSION,
        "murank_version": __version__,
        "notice": NOTICE,
        "method": settings.method,
        "parameters": used_parameters(settings.method, given, with_mu=with_mu),
        "protocol": dict(settings.protocol),
        "counts": {
            "num_query": features.num_query,
            "num_gallery": features.num_gallery,
            "dim": int(features.features.shape[1]),
            "mu_candidates": _num_candidates(mu),
            "gallery_mu_candidates": _num_candidates(gallery_mu),
            "top_k": min(settings.top_k, features.num_gallery),
        },
    }


def _num_candidates(mu: MuDistances | None) -> int:
    return 0 if mu is None else int(mu.mu.shape[1])
