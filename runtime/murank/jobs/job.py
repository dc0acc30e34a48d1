"""The job: images, or features from elsewhere, to features and mu that can be re-ranked."""

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from murank.engine.engine import Order
from murank.jobs.asked_pairs import Pairs
from murank.jobs.asking import once_each
from murank.jobs.candidates import nearest, nearest_others
from murank.jobs.embed import embed
from murank.jobs.job_images import Images
from murank.jobs.job_log import JobLog
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.score import GALLERY_MU, HALVES, QUERY_MU, MuStage, Scored, score
from murank.jobs.stage import Record, fingerprint
from murank.jobs.workspace import FEATURES_FILE, Workspace
from murank.rerank.alignment import OFF, Aligned, Alignment, align
from murank.rerank.features import FeatureSet
from murank.rerank.mu import MuDistances
from murank.rerank.pipeline import StageClock


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
class Job:
    """What the engine is asked for."""

    engine: LazyEngine
    source: Images | GivenFeatures
    top_k_candidates: int | None = None  # of a query; None: its pairs are not scored
    gallery_mu: int | None = None  # candidates of a gallery image; None: no pairs of these
    order: Order = "given"
    strict: bool = False
    device: str = "cpu"  # of the kernels
    alignment: Alignment = OFF  # candidates are chosen on what it gives

    @property
    def job(self) -> dict[str, Any]:
        """What the stages depend on, by the name a user knows it by."""
        return {
            "--engine": self.engine.answers_sha256,
            "--bits": self.engine.bits,
            "images": self._images,
            "--top-k-candidates": self.top_k_candidates,
            "--gallery-mu": self.gallery_mu,
            "--order": self.order if self.scores else None,
            "--align-cameras": self.alignment.to_json() if self.scores else None,
        }

    @property
    def writes(self) -> list[str]:
        """Names of the files that the stages make."""
        embeds = [FEATURES_FILE] if isinstance(self.source, Images) else []
        scores = [stage.files[one] for stage in self.scores for one in HALVES[self.order]]
        return [*embeds, *scores]

    @property
    def scores(self) -> dict[MuStage, int]:
        """Stages that score pairs, in order, and candidates a row of each."""
        wanted = {QUERY_MU: self.top_k_candidates, GALLERY_MU: self.gallery_mu}
        return {stage: k for stage, k in wanted.items() if k is not None}

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
    aligned: Aligned
    mu: MuDistances | None  # from the engine
    gallery_mu: MuDistances | None  # the same between gallery images
    fingerprint: str  # of the features
    summary: Mapping[str, Any]  # JSON-ready


def prepare(plan: Job, workspace: Workspace, *, clock: StageClock, report: JobLog) -> Prepared:
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
        for note in source.notes:
            report.note(note)
        with clock.stage("embed"):
            found = embed(source, plan.engine, workspace, strict=plan.strict, report=report)
        features, paths, made_from = found.features, found.images.paths, None
        skipped += found.skipped
        records[FEATURES_FILE] = found.record
        states[FEATURES_FILE], current = found.state, found.record["fingerprint"]
    else:
        features, paths = source.features, source.image_paths
        made_from = current = source.fingerprint
    with clock.stage("align"):
        aligned = align(features, plan.alignment, progress=report.part("align"))
    work = _pairs(plan, aligned.features, paths, clock, report)
    for pairs in work.values():
        pairs.check(strict=plan.strict)
    found_mu: dict[MuStage, Scored] = {}
    for stage, pairs in work.items():
        with clock.stage(stage.name):
            found_mu[stage] = scored = score(
                stage, pairs, plan.engine, workspace, order=plan.order, features=current,
                made_from=made_from, strict=plan.strict, report=report,
            )  # fmt: skip
        records |= scored.records
        states |= scored.states
    skips = once_each((skip for one in found_mu.values() for skip in one.skips), operator.add)
    mu, gallery_mu = (
        found_mu[stage].mu if stage in found_mu else None for stage in (QUERY_MU, GALLERY_MU)
    )
    summary = {
        "engine": _engine(plan.engine, records),
        "top_k_candidates": None if mu is None else mu.mu.shape[1],
        "gallery_mu": None if gallery_mu is None else gallery_mu.mu.shape[1],
        "order": plan.order if found_mu else None,
        "skipped": [*skipped, *(skip._asdict() for skip in skips)],
        "stages": states,
    }
    return Prepared(features, aligned, mu, gallery_mu, current, summary)


def _pairs(
    plan: Job, features: FeatureSet, paths: Sequence[Path], clock: StageClock, report: JobLog
) -> dict[MuStage, Pairs]:
    """Choose the pairs of all stages before any of them is scored: what is missing shows early."""
    query, gallery = paths[: features.num_query], paths[features.num_query :]
    found = {}
    for stage, k in plan.scores.items():
        inside = stage is GALLERY_MU
        name = "gallery_candidates" if inside else "candidates"
        with clock.stage(name):
            distances, candidates = (nearest_others if inside else nearest)(
                features, k, device=plan.device, progress=report.part(name)
            )
        found[stage] = Pairs(gallery if inside else query, gallery, candidates, distances)
    return found


def _engine(engine: LazyEngine, records: Mapping[str, Record]) -> dict[str, Any]:
    """Describe the engine and what really ran it, now or when a reused stage was made."""
    providers: dict[str, list[str]] = {}
    for record in records.values():
        providers |= record["providers"]
    return {
        "folder": str(engine.folder),
        "sha256": engine.sha256,
        "answers_sha256": engine.answers_sha256,
        "precision": engine.manifest.precision,
        "providers": providers,
    }
