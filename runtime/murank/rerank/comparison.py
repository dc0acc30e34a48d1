"""Every re-ranking method on the same features, with and without mu."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from murank._exceptions import InputError
from murank.datasets.labels import Labels
from murank.rerank.alignment import Aligned
from murank.rerank.features import FeatureSet
from murank.rerank.intervals import Gain, paired_gain
from murank.rerank.methods import METHODS, Progress, distance_blocks, kernel_errors
from murank.rerank.metrics import Metrics, metrics_of
from murank.rerank.mu import MuDistances
from murank.rerank.verdicts import Verdicts, evaluator_arguments

Fused = Literal["none", "mu", "gallery", "gallery only"]
ENCODER = "encoder"
_NAMES = {"none": ENCODER, "simple": ENCODER}  # `simple` is the encoder's ranking with mu fused
_ADDED: Mapping[Fused, str] = {
    "none": "", "mu": " + mu", "gallery": " + mu, gallery mu", "gallery only": " + gallery mu",
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """One line of the comparison."""

    name: str  # "encoder" (as it is, or aligned) or the method
    fused: Fused  # nothing, mu of the candidates, mu between gallery images as well, or it alone
    metrics: Metrics
    gain: Gain | None = None  # in mAP, of mu over the same without it

    @property
    def label(self) -> str:
        """The name, and which mu took part."""
        return self.name + _ADDED[self.fused]

    @property
    def verdict(self) -> str | None:
        """A sentence on what mu does here."""
        what = _ADDED[self.fused].removeprefix(" + ")
        return None if self.gain is None else self.gain.verdict(what, self.name)


def compare(
    features: FeatureSet,
    mu: MuDistances | None = None,
    gallery_mu: MuDistances | None = None,
    *,
    aligned: Aligned | None = None,
    alpha: float | None = None,
    protocol: Mapping[str, Any] | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> list[Compared]:
    """Evaluate the encoder and every method by the kernels' defaults, without and with mu.

    With `aligned` features, every line but the first is of these.

    Raises
    ------
    InputError
        The features have no labels or nothing to find, or the kernels refuse mu or `alpha`; before
        any work.
    """
    labels = check_comparable(features, mu, gallery_mu, alpha=alpha, protocol=protocol)
    named: Callable[[str], Progress | None] = progress or (lambda _name: None)
    used, names, rows = features, _NAMES, []
    if aligned is not None and aligned.level != "off":
        used, names = aligned.features, dict.fromkeys(_NAMES, aligned.label)
        plain = distance_blocks("none", features, progress=named(ENCODER))
        rows.append(Compared(ENCODER, "none", metrics_of(evaluation_of(plain, labels, protocol))))
    without: dict[str, Any] = {}  # average precisions [Q] of each name without mu
    lines = _lines(
        with_mu=mu is not None, with_gallery=gallery_mu is not None,
        with_cameras=features.camids is not None,
    )  # fmt: skip
    for method, fused in lines:
        name = names.get(method, method)
        given = _given(fused, mu, gallery_mu, alpha)
        shown = named(name + _ADDED[fused])
        evaluation = evaluation_of(
            distance_blocks(method, used, progress=shown, **given), labels, protocol
        )
        if fused == "none":
            without[name] = evaluation.all_AP
        gain = None if fused == "none" else paired_gain(without[name], evaluation.all_AP)
        rows.append(Compared(name, fused, metrics_of(evaluation), gain))
    return rows


def check_comparable(
    features: FeatureSet,
    mu: MuDistances | None,
    gallery_mu: MuDistances | None,
    *,
    alpha: float | None,
    protocol: Mapping[str, Any] | None,
) -> Labels:
    """Raise what `compare` would raise, before any work; return the labels."""
    labels = features.labels
    if labels is None:
        raise InputError("a comparison needs pids, and the features have none")
    verdicts = Verdicts(labels, protocol or {})
    if not verdicts.num_matches.any():
        raise InputError(f"a comparison needs a query with a match, and {verdicts.no_match}")
    weight: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
    # The kernels refuse bad mu, of either kind, here: not after half of the lines.
    distance_blocks("k-reciprocal", features, mu, gallery_mu=gallery_mu, **weight)
    return labels


def _given(
    fused: Fused, mu: MuDistances | None, gallery_mu: MuDistances | None, alpha: float | None
) -> dict[str, Any]:
    """Return what a line gives to its method."""
    if fused == "none":
        return {}
    given: dict[str, Any] = {"mu": mu} if alpha is None else {"mu": mu, "alpha": alpha}
    return {**given, "gallery_mu": gallery_mu} if fused.startswith("gallery") else given


def evaluation_of(blocks: Any, labels: Labels, protocol: Mapping[str, Any] | None) -> Any:
    """Return the kernels' RankEvaluation of blocks of distances."""
    from murank_kernels import RankEvaluator

    with kernel_errors():
        evaluator = RankEvaluator(**evaluator_arguments(labels, protocol or {}))
        for first_query, distances in blocks:
            evaluator.update(first_query, distances)
        return evaluator.result()


def _lines(*, with_mu: bool, with_gallery: bool, with_cameras: bool) -> Iterator[tuple[str, Fused]]:
    yield "none", "none"
    if with_mu:
        yield "simple", "mu"
    for name, method in METHODS.items():
        if method.needs_camids and not with_cameras:
            continue
        if method.takes_mu and not method.needs_mu:
            yield name, "none"
            if with_mu:
                yield name, "mu"
            if with_gallery:
                yield name, "gallery" if with_mu else "gallery only"
