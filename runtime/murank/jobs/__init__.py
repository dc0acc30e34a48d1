"""The batch job: folders of images in; features, mu and what they were made from out.

listing -> embed -> candidates -> mu (-> mu inside the gallery); each stage can be fed from
elsewhere, resumed and reused.

Imports checks, files, machine, images, datasets, folder, backends, engine, rerank, journal, crew.
"""

from murank.jobs.candidates import check_others
from murank.jobs.crews import Workers, crew_of, processes
from murank.jobs.job import GivenFeatures, Job
from murank.jobs.job_estimate import JobEstimate, estimate
from murank.jobs.job_images import Images
from murank.jobs.job_log import JobLog
from murank.jobs.job_report import FinishedJob, JobReport, is_job, read_job
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.prepare_job import prepare
from murank.jobs.share import Share
from murank.jobs.skip_limit import SkipLimit
from murank.jobs.workspace import JobFolder

__all__ = [
    "FinishedJob",
    "GivenFeatures",
    "Images",
    "Job",
    "JobEstimate",
    "JobFolder",
    "JobLog",
    "JobReport",
    "LazyEngine",
    "Share",
    "SkipLimit",
    "Workers",
    "check_others",
    "crew_of",
    "estimate",
    "is_job",
    "prepare",
    "processes",
    "read_job",
]
