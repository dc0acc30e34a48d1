"""A device of round figures."""

from murank_export.plan.devices import Assumed, Device

GIB = 1 << 30


def made_device(
    *,
    kind: str = "gpu",
    rates: dict[str, float] | None = None,
    bandwidth: float = 100.0,
    compute: float = 0.5,
    memory: float = 0.25,
    node_seconds: float = 0.125,
    shared: bool = False,
    memory_bytes: int = 16 * GIB,
    base_bytes: int = 1000,
) -> Device:
    """Rates and bandwidth as given, in operations and bytes a second."""
    assumed = Assumed(compute, memory, node_seconds, 0.5, base_bytes, "made up")
    return Device(
        "made", "A made device", kind, "sm_90", rates or {"fp32": 10.0, "int8": 40.0},  # type: ignore[arg-type]
        bandwidth, memory_bytes, shared=shared, host_bandwidth=50.0, assumed=assumed,
        source="no data sheet",
    )  # fmt: skip
