"""The batch job: folders of images in; features, mu and what they were made from out.

listing -> embed -> candidates -> mu (-> mu inside the gallery); each stage can be fed from
elsewhere, resumed and reused.
"""

from murank.jobs.candidates import check_others
from murank.jobs.job import GivenFeatures, Plan, Prepared, prepare
from murank.jobs.job_images import Images
from murank.jobs.job_report import Report, Silent
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.workspace import JobFolder, Memory, Workspace

__all__ = [
    "GivenFeatures",
    "Images",
    "JobFolder",
    "LazyEngine",
    "Memory",
    "Plan",
    "Prepared",
    "Report",
    "Silent",
    "Workspace",
    "check_others",
    "prepare",
]
