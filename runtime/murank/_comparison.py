"""Every re-ranking method on the same features, with and without mu."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from murank._exceptions import InputError
from murank._features import FeatureSet
from murank._methods import METHODS, Progress, distance_blocks, kernel_errors
from murank._metrics import Metrics, metrics_of
from murank._mu import MuDistances

Fused = Literal["none", "mu", "gallery", "gallery only"]
ENCODER = "encoder"
_NAMES = {"none": ENCODER, "simple": ENCODER}  # `simple` is the encoder's ranking with mu fused
_ADDED: Mapping[Fused, str] = {
    "none": "", "mu": " + mu", "gallery": " + mu, gallery mu", "gallery only": " + gallery mu",
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """One line of the comparison."""

    name: str  # "encoder" or the method
    fused: Fused  # nothing, mu of the candidates, mu between gallery images as well, or it alone
    metrics: Metrics

    @property
    def label(self) -> str:
        """The name, and which mu took part."""
        return self.name + _ADDED[self.fused]


def compare(
    features: FeatureSet,
    mu: MuDistances | None = None,
    gallery_mu: MuDistances | None = None,
    *,
    alpha: float | None = None,
    protocol: Mapping[str, Any] | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> list[Compared]:
    """Evaluate the encoder and every method by the kernels' defaults, without and with mu.

    Raises
    ------
    InputError
        The features have no labels or nothing to find, or the kernels refuse mu or `alpha`; before
        any work.
    """
    labels = features.labels
    if labels is None or not labels.counted(protocol or {}).num_matches().any():
        raise InputError(
            "a comparison needs pids and camids, and a query with a match from another camera"
        )
    weight: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
    # The kernels refuse bad mu, of either kind, here: not after half of the lines.
    distance_blocks("k-reciprocal", features, mu, gallery_mu=gallery_mu, **weight)
    found = []
    for method, fused in _lines(with_mu=mu is not None, with_gallery=gallery_mu is not None):
        line = Compared(_NAMES.get(method, method), fused, {})
        given: dict[str, Any] = {} if fused == "none" else {"mu": mu, **weight}
        if fused in ("gallery", "gallery only"):
            given["gallery_mu"] = gallery_mu
        blocks = distance_blocks(
            method, features, progress=None if progress is None else progress(line.label), **given
        )
        metrics = _evaluate(blocks, labels.as_arguments(), protocol or {})
        found.append(Compared(line.name, fused, metrics))
    return found


def _evaluate(blocks: Any, labels: tuple[Any, ...], protocol: Mapping[str, Any]) -> Metrics:
    from murank_kernels import RankEvaluator

    with kernel_errors():
        evaluator = RankEvaluator(*labels, **{"junk": "keep", **protocol})
        for first_query, distances in blocks:
            evaluator.update(first_query, distances)
        return metrics_of(evaluator.result())


def _lines(*, with_mu: bool, with_gallery: bool) -> Iterator[tuple[str, Fused]]:
    yield "none", "none"
    if with_mu:
        yield "simple", "mu"
    for name, method in METHODS.items():
        if method.takes_mu and not method.needs_mu:
            yield name, "none"
            if with_mu:
                yield name, "mu"
            if with_gallery:
                yield name, "gallery" if with_mu else "gallery only"
