"""How long a stage takes on a device: the least that its data sheet allows, and a prediction.

Floor: each product at the peak rate, or as long as its weights take to arrive, whichever is
longer; never less than what goes in and out. Only what stays in a cache from query to query is
faster.
Prediction: every step at the assumed share of the peak rate or of the bandwidth, activations
counted, and the assumed time to start the graph's nodes. It was not measured.
"""

from dataclasses import dataclass
from typing import Literal

from murank_export.plan.devices import Device
from murank_export.plan.graph_run import GraphRun
from murank_export.plan.work import Work

Bound = Literal["compute", "memory", "starts"]


@dataclass(frozen=True)
class Seconds:
    """Of one stage of one query."""

    floor: float
    compute: float  # predicted, of steps that their operations limit
    memory: float  # of steps that their bytes limit
    starts: float  # to start all nodes

    @property
    def predicted(self) -> float:
        """The sum."""
        return self.compute + self.memory + self.starts

    @property
    def bound(self) -> Bound:
        """What takes most of it."""
        parts: dict[Bound, float] = {
            "compute": self.compute, "memory": self.memory, "starts": self.starts
        }  # fmt: skip
        return max(parts, key=lambda name: parts[name])


def seconds(work: Work, device: Device) -> Seconds:
    """Return floor and prediction of a stage."""
    assumed = device.assumed
    floor = work.host_bytes / device.host_bandwidth
    compute, memory, starts = work.host_seconds, floor / assumed.memory, 0.0
    for run, times in work.runs:
        floor += times * floor_of(run, device)
        starts += times * run.nodes * assumed.node_seconds
        for step in run.steps:
            busy = step.operations / (device.rate(step.kind) * assumed.compute)
            moving = step.bytes / (device.bandwidth * assumed.memory)
            compute += times * busy if busy > moving else 0.0
            memory += times * moving if busy <= moving else 0.0
    return Seconds(floor, compute, memory, starts)


def floor_of(run: GraphRun, device: Device) -> float:
    """Return the least seconds of one run of a graph."""
    products = sum(
        max(step.operations / device.rate(step.kind), step.weight_bytes / device.bandwidth)
        for step in run.steps if step.operations
    )  # fmt: skip
    weights = sum(step.weight_bytes for step in run.steps)
    return max(products, (weights + run.input_bytes + run.output_bytes) / device.bandwidth)
