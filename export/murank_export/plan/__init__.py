"""What an engine will need on a device: operations, bytes, memory, floor and predicted latency.

Imports no room.
"""

from murank_export.plan.check import Checked, check_on_this_cpu
from murank_export.plan.devices import DEVICES, NAMES
from murank_export.plan.host import faster, this_cpu
from murank_export.plan.prediction import Prediction, StagePlan, Workload, check_plan, plan_engine

__all__ = [
    "DEVICES",
    "NAMES",
    "Checked",
    "Prediction",
    "StagePlan",
    "Workload",
    "check_on_this_cpu",
    "check_plan",
    "faster",
    "plan_engine",
    "this_cpu",
]
