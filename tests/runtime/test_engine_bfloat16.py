"""K/V in bfloat16, which only the device has; here onnxruntime's CPU, which moves and casts it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from murank import Engine
from murank.backends.onnx import session as session_module
from murank.backends.onnx.session import Session, SessionSettings
from murank.backends.onnx.tiny_onnx import to_bfloat16
from murank.engine.decoder import Decoder
from murank.engine.memory_cache import MemoryCache
from murank.engine.scorer import Scorer
from murank.folder.contents import EngineFiles
from murank.folder.manifest import ScorerPart, Shapes, read_manifest

pytest.importorskip("onnxruntime")
MINIATURE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
CPU = SessionSettings("cpu", 1)
HIDDEN, TOKENS, STATIC, TEXT = 4, 2, 3, 1
FLOAT, BFLOAT16, INT64 = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT64


def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """To the nearest bfloat16, ties to even: the upper half of a float32."""
    bits = values.astype(np.float32).view(np.uint32)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return kept.view(np.float32)


def numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def value(name: str, type_: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, type_, list(shape))


def decoder_graph() -> Any:
    """K/V grow by the first candidate's tokens; logits are sums of K or V, and of a candidate."""
    node, nodes = helper.make_node, []
    constants = [
        helper.make_tensor("first", INT64, [], [0]),
        helper.make_tensor("level", INT64, [1], [1]),
        helper.make_tensor("inner", INT64, [3], [1, 2, 3]),
        helper.make_tensor("outer", INT64, [3], [2, 3, 4]),
    ]
    nodes.append(node("Gather", ["vision", "first"], ["seen"], axis=1))  # [Q,levels=1,T,H]
    nodes.append(node("Cast", ["seen"], ["grown"], to=BFLOAT16))
    nodes.append(node("ReduceSum", ["vision", "outer"], ["candidates"], keepdims=0))  # [Q,K]
    for index, part in enumerate(("key", "value")):
        past, wide = f"past_{part}_0", f"wide_{part}"
        nodes.append(node("Concat", [past, "grown"], [f"present_{part}_0"], axis=2))
        nodes.append(node("Cast", [past], [wide], to=FLOAT))
        nodes.append(node("ReduceSum", [wide, "inner"], [f"sum_{part}"], keepdims=0))
        nodes.append(node("Unsqueeze", [f"sum_{part}", "level"], [f"row_{part}"]))
        nodes.append(node("Add", [f"row_{part}", "candidates"], [f"answer_{index}"]))
        nodes.append(node("Unsqueeze", [f"answer_{index}", "last"], [f"column_{index}"]))
    constants.append(helper.make_tensor("last", INT64, [1], [2]))
    nodes.append(node("Concat", ["column_0", "column_1"], ["logits"], axis=2))
    past_names, present = ["past_key_0", "past_value_0"], ["present_key_0", "present_value_0"]
    inputs = [
        value("vision", FLOAT, "q", "k", 1, TOKENS, HIDDEN), value("text", FLOAT, "s", HIDDEN),
        value("position_ids", INT64, 3, "p"),
        *(value(name, BFLOAT16, "q", 1, "past", HIDDEN) for name in past_names),
    ]  # fmt: skip
    outputs = [
        value("logits", FLOAT, "q", "k", 2),
        *(value(name, BFLOAT16, "q", 1, "now", HIDDEN) for name in present),
    ]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.fixture
def static() -> dict[str, NDArray[np.float32]]:
    """K/V as prompt.safetensors has them: float32 that bfloat16 can be."""
    return {
        f"past_{part}_0": rounded(numbers(1, 1, STATIC, HIDDEN, seed=seed))
        for seed, part in enumerate(("key", "value"))
    }


@pytest.fixture
def decoder(tmp_path: Path, static: dict[str, NDArray[np.float32]]) -> Decoder:
    (tmp_path / "decoder.onnx").write_bytes(decoder_graph().SerializeToString())
    text = numbers(TEXT, HIDDEN)
    positions = np.zeros((3, TOKENS + TEXT), np.int64)
    prompt: dict[str, NDArray[Any]] = {
        **static, "prefill_text": text, "suffix_text": text, "prefill_positions": positions,
        "suffix_positions": positions,
    }  # fmt: skip
    save_file(prompt, tmp_path / "prompt.safetensors")
    tokens = TOKENS + TEXT
    shapes = Shapes(
        layers=1, kv_heads=1, head_dim=HIDDEN, hidden=HIDDEN, levels=1, vision_tokens=TOKENS,
        static_tokens=STATIC, prefill_tokens=tokens, suffix_tokens=tokens,
    )  # fmt: skip
    part = SimpleNamespace(decoder="decoder.onnx", prompt="prompt.safetensors", shapes=shapes)
    return Decoder(EngineFiles(tmp_path), cast("ScorerPart", part), CPU)


@pytest.mark.parametrize("queries", [1, 3])
def test_from_the_baked_prefix_to_the_answer(
    decoder: Decoder, static: dict[str, NDArray[np.float32]], queries: int
) -> None:
    seen = numbers(queries, 1, TOKENS, HIDDEN, seed=5)
    candidates = numbers(queries, 4, 1, TOKENS, HIDDEN, seed=6)
    assert decoder.dtype == np.float32  # of vision tokens
    prefix = decoder.prefill(seen)
    types = [one.data_type() for one in (*decoder._static(queries).values, *prefix.values)]
    assert types == ["tensor(bfloat16)"] * 4
    assert [one.shape() for one in prefix.values] == [[queries, 1, STATIC + TOKENS, HIDDEN]] * 2
    found = decoder.logits(prefix, candidates)
    shared = [one.sum() + rounded(seen).sum(axis=(1, 2, 3)) for one in static.values()]
    wanted = np.stack(shared, axis=1)[:, None] + candidates.sum(axis=(2, 3, 4))[..., None]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    unrounded = wanted[:, 0, 0] - rounded(seen).sum(axis=(1, 2, 3)) + seen.sum(axis=(1, 2, 3))
    assert np.abs(found[:, 0, 0] - unrounded).max() > 1e-4  # the oracle sees a missing rounding


def widened(narrow: Any) -> NDArray[np.float32]:
    """A bfloat16 value's numbers, by a graph: it has no `numpy()`."""
    shape = narrow.shape()
    node = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    ends = [value("x", BFLOAT16, *shape)], [value("y", FLOAT, *shape)]
    model = helper.make_model(
        helper.make_graph([node], "g", *ends), opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )  # fmt: skip
    session = Session(Path("widen"), CPU, graph=model.SerializeToString())
    (found,) = session.run({"x": narrow}, ["y"])
    return cast("NDArray[np.float32]", found.numpy())


def test_values_take_the_type_of_their_input(decoder: Decoder) -> None:
    session = cast("Session", decoder.session)
    special = [np.inf, -np.inf, 0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 1e-40, 3.4e38]
    array = np.concatenate([numbers(1, 1, 5, HIDDEN).ravel(), np.array(special, np.float32)])
    array = array.reshape(1, 1, -1, HIDDEN)
    narrow = session.to_device(array[:, :, ::-1], "past_key_0")
    assert narrow.data_type() == "tensor(bfloat16)"
    np.testing.assert_array_equal(widened(narrow), rounded(array)[:, :, ::-1])
    for name in (None, "vision", "text"):
        same = session.to_device(array, name)
        assert same.data_type() == "tensor(float)"
        np.testing.assert_array_equal(same.numpy(), array)
    empty = session.to_device(array[:, :, :0], "past_key_0")  # no static prefix
    assert (empty.data_type(), empty.shape()) == ("tensor(bfloat16)", [1, 1, 0, HIDDEN])
    assert list(session._narrowing) == [4]


def test_the_gpu_of_the_graph_narrows(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CUDA session, which is made up, by a session on the same GPU."""
    made: list[tuple[Any, ...]] = []

    class Fake:
        def __init__(self, name: Path, settings: SessionSettings, *, graph: bytes) -> None:
            made.append((str(name), settings, graph))

        def run(self, inputs: Any, outputs: Any) -> list[Any]:
            assert outputs == ["narrow"]
            return [("narrow", inputs["wide"].shape)]

    session = Session.__new__(Session)
    session.device, session.device_id, session._threads, session._narrowing = "cuda", 1, 2, {}
    session._types = {"past_key_0": "tensor(bfloat16)"}
    monkeypatch.setattr(session_module, "Session", Fake)
    found = [session.to_device(np.zeros((n, 1, 3, 4), np.float32), "past_key_0") for n in (1, 2)]
    assert found == [("narrow", (1, 1, 3, 4)), ("narrow", (2, 1, 3, 4))]
    ((name, settings, graph),) = made
    assert (name, graph, settings.threads) == ("values to bfloat16", to_bfloat16(4), 2)
    ((provider, options),) = settings.providers
    assert (provider, options["device_id"]) == ("CUDAExecutionProvider", "1")


def test_prefixes_are_counted_as_they_lie_there() -> None:
    part = read_manifest(MINIATURE).scorer
    assert part is not None
    scorer = Scorer(
        EngineFiles(MINIATURE), part, CPU, item_bytes=2, max_pairs=4, vision_memory=MemoryCache(0),
        vision_disk=None,
    )  # fmt: skip
    assert scorer._prefix_bytes == 2 * part.shapes.kv_values
    assert scorer._prefixes.budget == 4 * scorer._prefix_bytes
    engine = Engine.from_pretrained(MINIATURE, providers="cpu", threads=1)
    assert engine.scorer is not None
    assert engine.scorer._prefix_bytes == 4 * part.shapes.kv_values
