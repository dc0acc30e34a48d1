"""The job: images, or features from elsewhere, to features and mu that can be re-ranked."""

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from murank.engine.pair_orders import Order
from murank.jobs.asked_pairs import Pairs
from murank.jobs.asking import once_each
from murank.jobs.candidates import nearest, nearest_others
from murank.jobs.embed import embed, given_record, keep_given
from murank.jobs.job_images import Images
from murank.jobs.job_log import JobLog
from murank.jobs.job_report import AskedAlignment, AskedEngine, JobReport
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.score import GALLERY_MU, HALVES, QUERY_MU, MuStage, Scored, score
from murank.jobs.stage import Record, fingerprint
from murank.jobs.workspace import FEATURES_FILE, Workspace
from murank.rerank.alignment import OFF, Alignment, align
from murank.rerank.features import FeatureSet
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
    candidates: int | None = None  # of a query; None: its pairs are not scored
    gallery_candidates: int | None = None  # of a gallery image; None: no pairs of these
    order: Order = "given"
    strict: bool = False
    device: str = "cpu"  # of the kernels
    alignment: Alignment = OFF  # candidates are chosen on what it gives

    @property
    def job(self) -> dict[str, Any]:
        """What the stages depend on, by the name a user knows it by."""
        return {
            "ENGINE": self.engine.answers_sha256,
            "--bits": self.engine.bits,
            "images": self._images,
            "--candidates": self.candidates,
            "--gallery-candidates": self.gallery_candidates,
            "--order": self.order if self.scores else None,
            "--align-cameras": self.alignment.to_json() if self.scores else None,
        }

    @property
    def writes(self) -> list[str]:
        """Names of the files that the stages make."""
        scores = [stage.files[one] for stage in self.scores for one in HALVES[self.order]]
        return [FEATURES_FILE, *scores]

    @property
    def scores(self) -> dict[MuStage, int]:
        """Stages that score pairs, in order, and candidates a row of each."""
        wanted = {QUERY_MU: self.candidates, GALLERY_MU: self.gallery_candidates}
        return {stage: k for stage, k in wanted.items() if k is not None}

    @property
    def image_root(self) -> Path:
        """Where paths in the features start."""
        return self.source.image_root if isinstance(self.source, GivenFeatures) else Path()

    @property
    def _images(self) -> str:
        if isinstance(self.source, GivenFeatures):
            return self.source.fingerprint
        # Names alone: an image that changed makes a part of a stage anew, not the whole job.
        paths = [str(path.absolute()) for path in self.source.paths]
        return fingerprint(paths, self.source.num_query)


@dataclass(frozen=True)
class Prepared:
    """What the stages found."""

    fingerprint: str  # of the features
    report: Mapping[str, Any]  # of job.json, JSON-ready


def prepare(plan: Job, workspace: Workspace, *, clock: StageClock, report: JobLog) -> Prepared:
    """Run the stages, or reuse what the workspace holds of them.

    Raises
    ------
    InputError, MachineError
        An image or the engine cannot be used; finished parts stay in the workspace.
    """
    source, states = plan.source, {}
    skipped: list[dict[str, Any]] = []
    if isinstance(source, Images):
        for note in source.notes:
            report.note(note)
        with clock.stage("embed"):
            embedded = embed(source, plan.engine, workspace, strict=plan.strict, report=report)
        features, paths, made_from = embedded.features, embedded.images.paths, None
        skipped, states[FEATURES_FILE], record = embedded.skipped, embedded.state, embedded.record
    else:
        features, paths, made_from = source.features, source.image_paths, source.fingerprint
        record = given_record(made_from)
    current = str(record["features"])
    with clock.stage("align"):
        aligned = align(features, plan.alignment, progress=report.part("align"))
    work = _pairs(plan, aligned.features, paths, clock, report)
    for pairs in work.values():
        pairs.check(strict=plan.strict)
    if isinstance(source, GivenFeatures):  # not before: nothing is written for images not there
        states[FEATURES_FILE] = keep_given(features, record, workspace)
    records = {FEATURES_FILE: record}
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
    widths = {stage: scored.mu.mu.shape[1] for stage, scored in found_mu.items()}
    told = JobReport(
        engine=_engine(plan.engine, records),
        candidates=widths.get(QUERY_MU),
        gallery_candidates=widths.get(GALLERY_MU),
        order=plan.order if found_mu else None,
        counts={"num_query": features.num_query, "num_gallery": features.num_gallery},
        skipped=[*skipped, *(skip._asdict() for skip in skips)],
        stages=states,
        asked_alignment=AskedAlignment.of(plan.alignment),
        alignment=aligned.to_json(plan.alignment),
        image_root=str(plan.image_root.absolute()),
        unlabelled=features.unlabelled,
        bits=plan.engine.bits,
        mu_defaults=plan.engine.manifest.mu_defaults,
        notes=aligned.notes,
    )
    return Prepared(current, told.to_json())


def _pairs(
    plan: Job, features: FeatureSet, paths: Sequence[Path], clock: StageClock, report: JobLog
) -> dict[MuStage, Pairs]:
    """Choose the pairs of all stages before any of them is scored: what is missing shows early."""
    query, gallery = paths[: features.num_query], paths[features.num_query :]
    pairs_of_stage = {}
    for stage, k in plan.scores.items():
        inside = stage is GALLERY_MU
        name = "gallery_candidates" if inside else "candidates"
        with clock.stage(name):
            distances, candidates = (nearest_others if inside else nearest)(
                features, k, device=plan.device, progress=report.part(name)
            )
        pairs_of_stage[stage] = Pairs(gallery if inside else query, gallery, candidates, distances)
    return pairs_of_stage


def _engine(engine: LazyEngine, records: Mapping[str, Record]) -> AskedEngine:
    """Describe the engine and what really ran it, now or when a reused stage was made."""
    providers: dict[str, list[str]] = {}
    for record in records.values():
        providers |= record["providers"]
    return AskedEngine(
        str(engine.folder), engine.sha256, engine.answers_sha256, engine.manifest.precision,
        providers,
    )  # fmt: skip
