"""Engines run by OpenVINO itself, beside onnxruntime as the oracle."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusal import Refuse
from wide_engine import ENGINE as WIDE
from wide_engine import SHIPPED

from murank import Engine, InputError
from murank.backends.openvino import loader as _loader
from murank.backends.protocol import SessionSettings
from murank.cli import main
from murank.engine.golden import FEATURE_TOLERANCE, TOLERANCE, replay
from murank.folder.manifest import read_manifest

pytest.importorskip("openvino")
# Of mu, as `Engine` promises of other batches: sums are added up in another order, no more.
CLOSE = 1e-5
COUNTS = (20, 1, 5, 2, 20, 1, 10)  # shapes change from query to query


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what was compiled is kept."""
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module", params=[SHIPPED, WIDE], ids=["w8", "fp32"])
def engines(request: pytest.FixtureRequest, kept: Path) -> Iterator[tuple[Engine, Engine]]:
    """One engine in onnxruntime and in OpenVINO."""
    with (
        Engine.from_pretrained(request.param, providers="cpu", threads=1) as one,
        Engine.from_pretrained(request.param, providers="openvino", plans=kept, threads=1) as other,
    ):
        yield one, other


@pytest.fixture(scope="module")
def crops() -> list[Any]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (96, 48, 3), dtype=np.uint8) for _ in range(24)]


def test_answers_are_onnxruntimes(engines: tuple[Engine, Engine], crops: list[Any]) -> None:
    one, other = engines
    assert set(map(tuple, other.providers.values())) == {("OpenVINO CPU float32",)}
    assert np.abs(one.embed(crops) - other.embed(crops)).max() < CLOSE
    for place, count in enumerate(COUNTS):
        query, candidates = crops[place], crops[3 : 3 + count]
        wanted, found = one.mu(query, candidates), other.mu(query, candidates)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=CLOSE)
    several = (crops[:3], [crops[3:9], crops[9:15], crops[15:21]])
    np.testing.assert_allclose(other.mu_many(*several), one.mu_many(*several), rtol=0, atol=CLOSE)
    wanted, found = (engine.mu(crops[0], crops[1:4], order="swapped") for engine in engines)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=CLOSE)


def test_a_prefix_stays_what_it_was(engines: tuple[Engine, Engine]) -> None:
    scorer = engines[1].need_scorer()
    shape = (scorer.part.preprocessing.height, scorer.part.preprocessing.width)
    drawn = np.random.default_rng(4).integers(0, 256, (3, 3, *shape), dtype=np.uint8)
    tokens = scorer.vision.of(list(drawn))
    prefix = scorer.decoder.prefill(tokens[:1])
    before = [value.numpy() for value in prefix.values]
    for _ in range(3):
        scorer.decoder.logits(prefix, tokens[None, 1:])
        scorer.decoder.prefill(tokens[1:2])
    for value, was in zip(prefix.values, before, strict=True):
        np.testing.assert_array_equal(value.numpy(), was)


def test_threads_do_not_mix(engines: tuple[Engine, Engine], crops: list[Any]) -> None:
    engine = engines[1]
    wanted = [engine.mu(crops[i], crops[4 + i : 9]) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: engine.mu(crops[i], crops[4 + i : 9]), [0, 1, 2, 3] * 3))
    for place, mu in enumerate(found):
        np.testing.assert_allclose(mu, wanted[place % 4], rtol=0, atol=CLOSE)


def test_a_second_process_compiles_nothing(
    engines: tuple[Engine, Engine],
    kept: Path,
    crops: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = engines[1].mu(crops[0], crops[1:6])
    folder = WIDE if engines[0].manifest.precision == "fp32" else SHIPPED
    monkeypatch.setattr(_loader, "_compiled", None)
    with Engine.from_pretrained(folder, providers="openvino", plans=kept, threads=1) as again:
        session = again.need_encoder().session
        np.testing.assert_array_equal(again.mu(crops[0], crops[1:6]), wanted)
    with pytest.raises(InputError, match="closed"):
        again.mu(crops[0], crops[1:6])
    with pytest.raises(InputError, match="was closed with its engine"):
        session.run({}, [])


def test_rounded_products_but_for_the_answer_head(
    crops: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that bf16 changes but the rounding itself, which this CPU may not have."""
    layers: list[str] = []

    def last_layer(compiled: Any) -> set[str]:
        names = [port for port in compiled.outputs if "logits" in port.get_names()]
        results = compiled.get_runtime_model().get_results() if names else []
        layers.extend(str(_loader._layer(one.input_value(0).get_node())) for one in results)
        return {"f32"}

    monkeypatch.setattr(_loader, "HINTS", {"bf16": "f32", "float32": "f32"})
    monkeypatch.setattr(_loader, "check_device", lambda *_: None)
    monkeypatch.setattr(_loader, "_product_types", last_layer)
    how: dict[str, Any] = {"providers": "openvino", "products": "bf16", "plans": tmp_path}
    with Engine.from_pretrained(SHIPPED, threads=1, **how) as engine:
        used = {graph: names[0] for graph, names in engine.providers.items()}
        found = engine.mu(crops[0], crops[1:9])
    assert used == {
        "encoder": "OpenVINO CPU float32", "vision": "OpenVINO CPU bf16",
        "decoder": "OpenVINO CPU bf16",
    }  # fmt: skip
    assert "Reduce" in layers  # no product, so it is rounded with none
    with Engine.from_pretrained(SHIPPED, threads=1, providers="cpu", parts=["scorer"]) as exact:
        np.testing.assert_allclose(found, exact.mu(crops[0], crops[1:9]), rtol=0, atol=CLOSE)
    settings = SessionSettings("openvino", 1, tmp_path, "bf16")
    replays = replay(SHIPPED, read_manifest(SHIPPED), settings)
    assert [one.passed for one in replays] == [True, True]
    assert [one.tolerance for one in replays] == [FEATURE_TOLERANCE, TOLERANCE["bf16"]]


def test_inputs_that_do_not_fit(engines: tuple[Engine, Engine]) -> None:
    session = engines[1].need_encoder().session
    with pytest.raises(
        InputError, match=r"encoder\.onnx could not .* OpenVINO CPU float32 on images"
    ):
        session.run({"images": np.zeros((1, 3, 5, 5), np.uint8)}, ["features"])
    with pytest.raises(InputError, match=r"features is .*, which does not fit"):
        session.expect({}, {"features": (None, 7)})
    with pytest.raises(InputError, match="other is missing"):
        session.expect({"other": (None,)}, {})


def test_the_command_line(capsys: pytest.CaptureFixture[str], refuse: Refuse, kept: Path) -> None:
    verify = ("inspect", SHIPPED, "--verify", "--threads", "1", "--plans", kept)
    assert main([*map(str, verify), "--providers", "openvino", "--quiet"]) == 0
    assert capsys.readouterr().out.count("on OpenVINO CPU float32") == 2
    refuse(*verify, "--providers", "openvino:AUTO", names="--providers")
    refuse(*verify, "--providers", "openvino:GPU.", names="--providers")
    refuse(*verify, "--products", "bf16", names="--products")
    refuse(*verify, "--products", "bf16", "--providers", "cpu", names="--products")
    refuse(*verify, "--products", "tf32", "--providers", "openvino", names="--products")
    refuse("inspect", SHIPPED, "--products", "bf16", names="--products")
