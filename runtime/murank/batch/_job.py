"""The job: images, or features from elsewhere, to features and mu that can be re-ranked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from murank._features import FeatureSet
from murank._mu import MuDistances
from murank._pipeline import Clock
from murank.batch._candidates import nearest
from murank.batch._embedding import embed
from murank.batch._engine import LazyEngine
from murank.batch._images import Images
from murank.batch._pairs import Pairs
from murank.batch._report import Report
from murank.batch._scoring import HALVES, score
from murank.batch._stage import Record, fingerprint
from murank.batch._workspace import FEATURES_FILE, MU_FILES, Workspace
from murank.engine.engine import Order


@dataclass(frozen=True)
class GivenFeatures:
    """Features from elsewhere, and where the images are that their paths name."""

    features: FeatureSet
    file: Path
    image_root: Path

    @property
    def image_paths(self) -> tuple[Path, ...]:
        """A path a row."""
        return tuple(self.image_root / str(path) for path in self.features.paths)

    @cached_property
    def fingerprint(self) -> str:
        """Of the file's bytes, and of how many are queries."""
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return fingerprint(digest, self.features.num_query)


@dataclass(frozen=True)
class Plan:
    """What the engine is asked for."""

    engine: LazyEngine
    source: Images | GivenFeatures
    top_k_candidates: int | None = None  # None: the engine scores no pairs
    order: Order = "given"
    strict: bool = False
    device: str = "cpu"  # of the kernels

    @property
    def job(self) -> dict[str, Any]:
        """What the stages depend on, by the name a user knows it by."""
        scores = self.top_k_candidates is not None
        return {
            "--engine": self.engine.sha256,
            "images": self._images,
            "--top-k-candidates": self.top_k_candidates,
            "--order": self.order if scores else None,
        }

    @property
    def writes(self) -> list[str]:
        """Names of the files that the stages make."""
        embeds = [FEATURES_FILE] if isinstance(self.source, Images) else []
        scores = [] if self.top_k_candidates is None else HALVES[self.order]
        return [*embeds, *(MU_FILES[one] for one in scores)]

    @property
    def _images(self) -> str:
        if isinstance(self.source, GivenFeatures):
            return self.source.fingerprint
        # Names alone: an image that changed makes a part of a stage anew, not the whole job.
        paths = [str(path.absolute()) for path in self.source.paths]
        return fingerprint(paths, self.source.num_query)


@dataclass(frozen=True)
class Prepared:
    """What there is to re-rank."""

    features: FeatureSet
    mu: MuDistances | None  # from the engine
    fingerprint: str  # of the features
    summary: Mapping[str, Any]  # JSON-ready


def prepare(plan: Plan, workspace: Workspace, *, clock: Clock, report: Report) -> Prepared:
    """Run the stages, or reuse what the workspace holds of them.

    Raises
    ------
    InputError, MachineError
        An image or the engine cannot be used; finished parts stay in the workspace.
    """
    records: dict[str, Record] = {}
    states: dict[str, str] = {}
    skipped: list[dict[str, Any]] = []
    source = plan.source
    if isinstance(source, Images):
        with clock.stage("embed"):
            found = embed(source, plan.engine, workspace, strict=plan.strict, report=report)
        features, paths, made_from = found.features, found.images.paths, None
        skipped += found.skipped
        records[FEATURES_FILE] = found.record
        states[FEATURES_FILE], current = found.state, found.record["fingerprint"]
    else:
        features, paths = source.features, source.image_paths
        made_from = current = source.fingerprint
    mu = None
    if plan.top_k_candidates is not None:
        with clock.stage("candidates"):
            distances, candidates = nearest(
                features, plan.top_k_candidates, device=plan.device,
                progress=report.part("candidates"),
            )  # fmt: skip
        num_query = features.num_query
        pairs = Pairs(paths[:num_query], paths[num_query:], candidates, distances)
        with clock.stage("mu"):
            scored = score(
                pairs, plan.engine, workspace, order=plan.order, features=current,
                made_from=made_from, strict=plan.strict, report=report,
            )  # fmt: skip
        mu = scored.mu
        skipped += scored.skipped
        records |= scored.records
        states |= scored.states
    summary = {
        "engine": _engine(plan.engine, records),
        "top_k_candidates": None if mu is None else mu.mu.shape[1],
        "order": None if mu is None else plan.order,
        "skipped": skipped,
        "stages": states,
    }
    return Prepared(features, mu, current, summary)


def _engine(engine: LazyEngine, records: Mapping[str, Record]) -> dict[str, Any]:
    """Describe the engine and what really ran it, now or when a reused stage was made."""
    providers: dict[str, list[str]] = {}
    for record in records.values():
        providers |= record["providers"]
    return {
        "folder": str(engine.folder),
        "sha256": engine.sha256,
        "precision": engine.manifest.precision,
        "providers": providers,
    }
