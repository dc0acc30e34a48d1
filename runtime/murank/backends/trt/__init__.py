"""TensorRT plans of an engine: built on the device that runs them, checked before they are loaded.

A plan is code for a GPU: it is made from the engine's ONNX graphs (`build_plans`), kept in the
user's own folder, and loaded (`PlanSession`) only where engine, device and library fit.
Neither TensorRT nor PyCUDA is imported before one of them is needed.
"""

from murank.backends.trt.build import Built, build_plans, check_request
from murank.backends.trt.build_settings import BuildSettings
from murank.backends.trt.plan_target import PlanMachine, this_machine
from murank.backends.trt.record import PlanPlatform
from murank.backends.trt.session import PlanSession

__all__ = [
    "BuildSettings",
    "Built",
    "PlanMachine",
    "PlanPlatform",
    "PlanSession",
    "build_plans",
    "check_request",
    "this_machine",
]
