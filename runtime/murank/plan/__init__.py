"""What an engine will need on a device: operations, bytes, memory, floor and predicted latency."""

from murank.plan._check import Checked, check_on_this_cpu
from murank.plan._host import faster, this_cpu
from murank.plan._plan import Plan, StagePlan, Workload, check_plan, plan_engine
from murank.plan.devices import DEVICES, NAMES, Device

__all__ = [
    "DEVICES",
    "NAMES",
    "Checked",
    "Device",
    "Plan",
    "StagePlan",
    "Workload",
    "check_on_this_cpu",
    "check_plan",
    "faster",
    "plan_engine",
    "this_cpu",
]
