"""How long a stage takes on a device: the least that its data sheet allows, and a prediction.

Floor: each product at the peak rate, or as long as its weights take to arrive, whichever is
longer; never less than what goes in and out. Only what stays in a cache from query to query is
faster.
Prediction: every node at the assumed share of the peak rate or of the bandwidth, activations
counted, and the assumed time to start it. It was not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from murank_export.plan.cost import GraphCost, NodeCost
from murank_export.plan.devices import Device
from murank_export.plan.work import Work

Bound = Literal["compute", "memory", "starts"]


@dataclass(frozen=True)
class Seconds:
    """Of one stage of one query."""

    floor: float
    compute: float  # predicted, of nodes that their operations limit
    memory: float  # of nodes that their bytes limit
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
    return _sum(_parts(work, device))


def _parts(work: Work, device: Device) -> Iterator[Seconds]:
    for cost, times in work.runs:
        one = _run(cost, device)
        yield Seconds(*(times * x for x in (one.floor, one.compute, one.memory, one.starts)))
    if work.host_bytes:
        floor = work.host_bytes / device.host_bandwidth
        yield Seconds(floor, work.host_seconds, floor / device.assumed.memory, 0.0)


def _run(cost: GraphCost, device: Device) -> Seconds:
    assumed = device.assumed
    compute = memory = 0.0
    for node in cost.nodes:
        busy = node.operations / (device.rate(node.arithmetic) * assumed.compute)
        moving = node.bytes / (device.bandwidth * assumed.memory)
        if busy > moving:
            compute += busy
        else:
            memory += moving
    return Seconds(floor_of(cost, device), compute, memory, len(cost.nodes) * assumed.node_seconds)


def floor_of(cost: GraphCost, device: Device) -> float:
    """Return the least seconds of one run of a graph."""
    products = sum(_least(node, device) for node in cost.nodes if node.operations)
    weights = sum(node.weight_bytes for node in cost.nodes)
    compulsory = weights + cost.input_bytes + cost.output_bytes
    return max(products, compulsory / device.bandwidth)


def _least(node: NodeCost, device: Device) -> float:
    return max(node.operations / device.rate(node.arithmetic), node.weight_bytes / device.bandwidth)


def _sum(parts: Iterator[Seconds]) -> Seconds:
    rows = [(one.floor, one.compute, one.memory, one.starts) for one in parts]
    return Seconds(*(sum(column) for column in zip(*rows, strict=True)))
