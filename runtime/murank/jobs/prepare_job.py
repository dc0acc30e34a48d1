"""A job, done: images, or features from elsewhere, to features and mu that can be re-ranked."""

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.crew.crew_protocol import Crew
from murank.jobs.asked_pairs import Pairs
from murank.jobs.choosing import choose_pairs
from murank.jobs.desk import Desk
from murank.jobs.embed import embed, given_record, keep
from murank.jobs.job import GivenFeatures, Job
from murank.jobs.job_images import Images
from murank.jobs.job_log import JobLog
from murank.jobs.job_report import AskedAlignment, AskedEngine, JobReport
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.pair_skips import once_each
from murank.jobs.score import GALLERY_MU, QUERY_MU, MuStage, Scored, score
from murank.jobs.stage import Record
from murank.jobs.workspace import FEATURES_FILE, JobFolder
from murank.journal.journal import Digest
from murank.rerank.alignment import align
from murank.rerank.features import feature_arrays
from murank.rerank.pipeline import StageClock


@dataclass(frozen=True)
class Prepared:
    """What the stages found."""

    fingerprint: str  # of the features
    report: Mapping[str, Any]  # of job.json, JSON-ready
    contents: Collection[Digest]  # of the images
    paths: Collection[str]  # of the images, absolute


def prepare(
    plan: Job, folder: JobFolder, crew: Crew, *, clock: StageClock, report: JobLog
) -> Prepared:
    """Run the stages, or reuse what the folder holds of them.

    Raises
    ------
    InputError, MachineError
        An image or the engine cannot be used; what was answered stays in the journal.
    """
    source, states = plan.source, {}
    desk = Desk(plan.engine, report, crew, folder.journal, plan.skips, mixed=plan.mixed)
    skipped: list[dict[str, Any]] = []
    digests: Sequence[Digest] | None = None
    own = _own_rows(plan)
    if isinstance(source, Images):
        for note in source.notes:
            report.note(note)
        with clock.stage("embed"):
            embedded = embed(source, desk, folder, rows=own)
        features, paths, digests = embedded.features, embedded.images.paths, embedded.digests
        skipped, states[FEATURES_FILE], record = embedded.skipped, embedded.state, embedded.record
    else:
        features, paths = source.features, source.image_paths
        record = given_record(source.fingerprint)
    current = str(record["features"])
    with clock.stage("align"):
        aligned = align(features, plan.alignment, progress=report.part("align"))
    work = choose_pairs(plan, aligned.features, paths, digests, clock, report)
    for pairs in work.values():
        pairs.check(strict=plan.skips.strict)
    # Not before: nothing is written for images that are not there.
    if isinstance(source, GivenFeatures) and plan.share is None:
        is_new = keep(FEATURES_FILE, feature_arrays(features), record, folder)
        states[FEATURES_FILE] = "given" if is_new else "reused"
    records = {FEATURES_FILE: record}
    found_mu: dict[MuStage, Scored] = {}
    for stage, pairs in work.items():
        with clock.stage(stage.name):
            found_mu[stage] = scored = score(
                stage, pairs, desk, folder, order=plan.order, features=current,
                rows=_asked_rows(plan, stage, pairs),
            )  # fmt: skip
        records |= scored.records
        states |= scored.states
    skips = once_each((skip for one in found_mu.values() for skip in one.skips), operator.add)
    widths = {stage: scored.mu.mu.shape[1] for stage, scored in found_mu.items()}
    counts = {"num_query": features.num_query, "num_gallery": features.num_gallery}
    if digests is not None:
        counts["byte_duplicates"] = len(digests) - len(set(digests))
    told = JobReport(
        engine=_engine(plan.engine, records),
        candidates=widths.get(QUERY_MU),
        gallery_candidates=widths.get(GALLERY_MU),
        order=plan.order if found_mu else None,
        counts=counts,
        images_embedded=desk.images_embedded,
        pairs_asked=desk.pairs_asked,
        vision_tokens={"looked_up": desk.tokens_looked_up, "computed": desk.tokens_computed},
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
    rows = source.paths if isinstance(source, Images) else source.image_paths
    return Prepared(current, told.to_json(), desk.used, {str(row.absolute()) for row in rows})


def _own_rows(plan: Job) -> NDArray[np.bool_] | None:
    """Return which images a share embeds: its queries, and the whole gallery. None: all."""
    if plan.share is None or not isinstance(plan.source, Images):
        return None
    rows = np.ones(len(plan.source.paths), bool)
    rows[: plan.source.num_query] = False
    own = plan.share.rows(plan.source.num_query)
    rows[own.start : own.stop] = True
    return rows


def _asked_rows(plan: Job, stage: MuStage, pairs: Pairs) -> range | None:
    """Return the rows of a stage that a share asks about; None: all."""
    if plan.share is None:
        return None
    if stage is QUERY_MU and isinstance(plan.source, Images):
        return range(len(pairs.candidates))  # no other queries were embedded
    return plan.share.rows(len(pairs.candidates))


def _engine(engine: LazyEngine, records: Mapping[str, Record]) -> AskedEngine:
    """Describe the engine and what really ran it, now or when a reused stage was made."""
    providers: dict[str, list[str]] = {}
    for record in records.values():
        providers |= record["providers"]
    return AskedEngine(
        str(engine.folder), engine.sha256, engine.answers_sha256, engine.manifest.precision,
        providers,
    )  # fmt: skip
