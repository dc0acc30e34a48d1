"""The batch job: folders of images in; features, mu and what they were made from out.

listing -> embed -> candidates -> mu (-> mu inside the gallery); each stage can be fed from
elsewhere, resumed and reused.
"""

from murank.batch._candidates import check_others
from murank.batch._engine import LazyEngine
from murank.batch._images import Images
from murank.batch._job import GivenFeatures, Plan, Prepared, prepare
from murank.batch._report import Report, Silent
from murank.batch._workspace import JobFolder, Memory, Workspace

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
