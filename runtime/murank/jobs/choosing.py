"""Which pairs the stages of a job are about."""

from collections.abc import Sequence
from pathlib import Path

from murank.jobs.asked_pairs import Pairs
from murank.jobs.candidates import nearest, nearest_others
from murank.jobs.job import Job
from murank.jobs.job_log import JobLog
from murank.jobs.score import GALLERY_MU, MuStage
from murank.journal.journal import Digest
from murank.rerank.features import FeatureSet
from murank.rerank.pipeline import StageClock


def choose_pairs(
    plan: Job,
    features: FeatureSet,
    paths: Sequence[Path],
    digests: Sequence[Digest] | None,
    clock: StageClock,
    report: JobLog,
) -> dict[MuStage, Pairs]:
    """Choose the pairs of all stages before any of them is scored: what is missing shows early."""
    split = features.num_query
    query, gallery = paths[:split], paths[split:]
    contents = None if digests is None else (digests[:split], digests[split:])
    pairs_of_stage = {}
    for stage, k in plan.scores.items():
        inside = stage is GALLERY_MU
        name = "gallery_candidates" if inside else "candidates"
        with clock.stage(name):
            distances, candidates = (nearest_others if inside else nearest)(
                features, k, device=plan.device, progress=report.part(name)
            )
        known = contents and ((contents[1], contents[1]) if inside else contents)
        pairs_of_stage[stage] = Pairs(
            gallery if inside else query, gallery, candidates, distances, known
        )
    return pairs_of_stage
