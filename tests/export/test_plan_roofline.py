"""Floors and predictions of hand-made costs on a device of round figures, and the device table."""

import pytest
from plan_devices import GIB, made_device

from murank import UsageError
from murank.folder.precision import Precision
from murank_export.plan.devices import DEVICES, NAMES
from murank_export.plan.graph_run import Execution, GraphRun, ProductKind, Step
from murank_export.plan.roofline import floor_of, seconds
from murank_export.plan.work import Work


def step(operations: int, weights: int = 0, moved: int = 0) -> Step:
    return Step("product", operations, weights, moved)


def graph(*steps: Step, inputs: int = 0, outputs: int = 0) -> GraphRun:
    return GraphRun(steps, len(steps), 0, inputs, outputs, 0)


def test_the_floor_of_products_is_the_longer_of_operations_and_weights() -> None:
    # 10 operations and 100 bytes a second: 5 s, then 3 s.
    assert floor_of(graph(step(50, weights=100), step(10, weights=300)), made_device()) == 8


def test_elementwise_work_and_activations_are_not_in_the_floor() -> None:
    busy = step(50, moved=2 * 10**6)
    assert floor_of(graph(busy, step(0, moved=10**6)), made_device()) == 5


def test_what_goes_in_and_out_is() -> None:
    cost = graph(step(10, weights=100), step(0, weights=200), inputs=600, outputs=300)
    assert floor_of(cost, made_device()) == 12


def test_a_prediction_adds_up_step_by_step() -> None:
    # At half of 10 and a quarter of 100 a second: 10 s of operations; 4 s of 100 bytes.
    found = seconds(Work("score", "score", ((graph(step(50), step(0, 20, 80)), 3),)), DEVICE)
    assert (found.compute, found.memory, found.starts) == (30, 12, 0.75)
    assert found.predicted == 42.75
    assert found.floor == 15
    assert found.bound == "compute"


DEVICE = made_device()


def test_the_longer_limits_a_step() -> None:
    found = seconds(Work("score", "score", ((graph(step(5, 0, 200)), 1),)), DEVICE)
    assert (found.compute, found.memory, found.bound) == (0, 8, "memory")
    idle = seconds(Work("score", "score", ((graph(*[step(0)] * 4), 1),)), DEVICE)
    assert (idle.predicted, idle.bound) == (0.5, "starts")


def test_what_stays_on_the_host() -> None:
    found = seconds(Work("rerank", "rerank", host_bytes=100, host_seconds=1.0), DEVICE)
    assert (found.floor, found.predicted) == (2, 1 + 8)


@pytest.mark.parametrize(
    ("arithmetic", "rates", "wanted"),
    [
        ("int8", {"fp32": 10.0, "int8": 40.0}, 40),
        ("fp16", {"fp32": 10.0, "int8": 40.0}, 10),  # a CPU without it
        ("fp16", {"fp32": 10.0, "fp16": 20.0}, 20),
        ("fp32", {"fp32": 10.0, "tf32": 15.0}, 10),
        ("fp32", {"fp32": 10.0, "fp16": 20.0}, 10),
    ],
)
def test_rates(arithmetic: ProductKind, rates: dict[str, float], wanted: float) -> None:
    assert made_device(rates=rates).rate(arithmetic) == wanted


def test_the_devices_that_were_promised() -> None:
    promised = "orin-nano-8gb orin-nx-16gb agx-orin-64gb thor t4 l4 h200 cpu"
    assert promised.split() == list(NAMES)


@pytest.mark.parametrize("name", DEVICES)
def test_the_table_makes_sense(name: str) -> None:
    device = DEVICES[name]
    rates = device.rates
    assert device.source.startswith("NVIDIA")
    # Narrower numbers are never slower, and a number is never twice as fast as one half as wide.
    assert rates["int8"] >= rates["fp16"] > rates.get("tf32", rates["fp32"]) >= rates["fp32"]
    assert rates["int8"] == pytest.approx(2 * rates["fp16"], rel=0.03)
    if "tf32" in rates:
        assert rates["fp16"] == pytest.approx(2 * rates["tf32"], rel=0.03)
    assert ("fp8" in rates) == (int(device.architecture.removeprefix("sm_")) >= 89)
    assert ("tf32" in rates) == (int(device.architecture.removeprefix("sm_")) >= 80)
    assert device.shared == (device.kind == "jetson")
    assert str(device.memory_bytes // GIB) in name.replace("thor", "128").replace(
        "t4", "16").replace("l4", "24").replace("h200", "141")  # fmt: skip
    assert 10e9 < device.bandwidth < 10e12
    assert 0 < device.usable_bytes < device.memory_bytes


def test_rates_are_dense() -> None:
    """Half of the data sheets' figures with sparsity, in TOPS."""
    sparse = {"orin-nano-8gb": 67, "agx-orin-64gb": 170, "l4": 485, "h200": 3958}
    for name, figure in sparse.items():
        assert DEVICES[name].rates["int8"] == pytest.approx(figure / 2 * 1e12, rel=0.02)
    assert DEVICES["t4"].rates["int8"] == 130e12  # Turing has no sparsity


def test_power_modes() -> None:
    orin = DEVICES["agx-orin-64gb"]
    assert orin.in_mode(None) is orin
    assert orin.in_mode("maxn").rates == orin.rates
    slow = orin.in_mode("15w")
    assert slow.rates["fp16"] == pytest.approx(14 / 171 * orin.rates["fp16"])
    assert "15w" in slow.title
    assert DEVICES["orin-nano-8gb"].in_mode("15w").bandwidth == 68e9
    with pytest.raises(UsageError, match="7w is not a mode of agx-orin-64gb: one of maxn, 50w"):
        orin.in_mode("7w")
    with pytest.raises(UsageError, match="maxn is not a mode of t4: none is known of it"):
        DEVICES["t4"].in_mode("maxn")


def test_compute_capabilities() -> None:
    found = {name: device.capability for name, device in DEVICES.items()}
    assert (found["t4"], found["orin-nx-16gb"], found["thor"]) == ("7.5", "8.7", "11.0")


@pytest.mark.parametrize(
    ("precision", "on_cpu", "floats", "narrow", "item", "token"),
    [
        ("fp32", True, "fp32", "fp32", 4, 4),
        ("fp16", False, "fp16", "fp16", 2, 2),
        ("fp16", True, "fp16", "fp16", 4, 4),  # its kernels widen halves
        ("bf16", False, "bf16", "bf16", 2, 4),  # the host has none
        ("int8", True, "fp32", "int8", 4, 4),
        ("int8-qdq", False, "fp16", "int8", 2, 2),
        ("int8-qdq", True, "fp16", "fp16", 4, 4),
        ("fp8", False, "fp16", "fp8", 2, 2),
        ("int4", False, "fp16", "fp16", 2, 2),  # widened in the product
    ],
)
def test_how_precisions_run(
    precision: Precision, on_cpu: bool, floats: str, narrow: str, item: int, token: int
) -> None:
    how = Execution(precision, on_cpu)
    assert (how.floats, how.narrow) == (floats, narrow)
    assert (how.item_bytes, how.token_bytes) == (item, token)
