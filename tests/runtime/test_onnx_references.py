import contextlib
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_folder import model, outside, weight
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper

from murank import InputError
from murank.folder import onnx_references
from murank.folder.onnx_references import graph_facts


def ref_locations(message: ModelProto) -> set[str]:
    """Walk every message there is with protobuf itself."""
    found = set()
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            if field.name == "external_data" and inner.key == "location":
                found.add(inner.value)
            found |= ref_locations(inner)
    return found


def found_in(content: bytes) -> set[str]:
    descriptor, name = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return set(graph_facts(Path(name)).locations)
    finally:
        Path(name).unlink()


def tensor(location: str) -> TensorProto:
    return outside(weight(location), location)


def sparse(location: str) -> SparseTensorProto:
    return SparseTensorProto(values=tensor(f"{location}_v"), indices=tensor(f"{location}_i"))


def graph(*, nodes: list[NodeProto], **fields: list[TensorProto]) -> GraphProto:
    return helper.make_graph(nodes, "g", [], [], fields.get("initializer", []))


def everywhere() -> ModelProto:
    """External data in every place that can hold a tensor."""
    body = graph(nodes=[helper.make_node("Constant", [], ["c"], value=tensor("in_body"))],
                 initializer=[tensor("body")])  # fmt: skip
    attributes: dict[str, Any] = {
        "t": tensor("t"),
        "g": body,
        "tensors": [tensor("t0"), tensor("t1")],
        "graphs": [graph(nodes=[], initializer=[tensor("g0")]), graph(nodes=[])],
        "sparse": sparse("s"),
        "sparses": [sparse("s0"), sparse("s1")],
        "ints": [1, 2, 1 << 40, -1],
        "floats": [0.5, 2.0],
        "text": "location",
    }
    node = helper.make_node("Any", ["x"], ["y"], **attributes)
    result = helper.make_model(graph(nodes=[node], initializer=[tensor("i0"), weight("inside")]))
    result.graph.sparse_initializer.append(sparse("init"))
    function = result.functions.add(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["c"], value=tensor("in_function")))
    function.attribute_proto.append(helper.make_attribute("default", tensor("default")))
    training = result.training_info.add()
    training.initialization.initializer.append(tensor("start"))
    training.algorithm.initializer.append(tensor("step"))
    result.metadata_props.add(key="location", value="not external data")
    return result


def test_every_place_that_can_hold_a_tensor() -> None:
    content = everywhere()
    expected = ref_locations(content)
    assert len(expected) == 19
    assert found_in(content.SerializeToString()) == expected


def test_the_table_is_what_onnx_says() -> None:
    """It has every field of onnx's own description behind which external data may be."""
    fields: dict[str, dict[int, str]] = {}  # message -> number -> message, from the model on

    def visit(message: Any) -> None:
        if message.full_name in fields:
            return
        inner = [field for field in message.fields if field.message_type is not None]
        fields[message.full_name] = {field.number: field.message_type.full_name for field in inner}
        for field in inner:
            visit(field.message_type)

    visit(ModelProto.DESCRIPTOR)
    found = {"onnx.TensorProto"}
    while more := {name for name in fields if found & set(fields[name].values())} - found:
        found |= more
    table = {
        name.removeprefix("onnx.").removesuffix("Proto"): {
            number: inner.removeprefix("onnx.").removesuffix("Proto")
            for number, inner in fields[name].items()
            if inner in found
        }
        for name in found
    }
    external = TensorProto.DESCRIPTOR.fields_by_name["external_data"]
    table["Tensor"] = {external.number: "ExternalData"}
    assert table == onnx_references._MESSAGES
    numbers = {field.name: field.number for field in external.message_type.fields}
    assert numbers == {"key": onnx_references._KEY, "value": onnx_references._VALUE}


def test_none(tmp_path: Path) -> None:
    onnx.save(model(weight()), tmp_path / "m.onnx")
    assert graph_facts(tmp_path / "m.onnx").locations == frozenset()


def test_weights_that_onnx_itself_puts_outside(tmp_path: Path) -> None:
    onnx.save(model(weight()), tmp_path / "m.onnx", save_as_external_data=True,
              location="m.data", size_threshold=0)  # fmt: skip
    assert graph_facts(tmp_path / "m.onnx").locations == {"m.data"}


def test_a_location_counts_whatever_data_location_says() -> None:
    content = tensor("there")
    content.data_location = TensorProto.DEFAULT
    assert found_in(model(content).SerializeToString()) == {"there"}


def nested(depth: int) -> ModelProto:
    inner = graph(nodes=[], initializer=[tensor("deep")])
    for _ in range(depth):
        inner = graph(nodes=[helper.make_node("Loop", [], [], body=inner)])
    return helper.make_model(inner)


def test_depth() -> None:
    assert found_in(nested(10).SerializeToString()) == {"deep"}
    content = field(13, field(1, b"location") + field(2, b"deep"))
    content = field(5, content)
    for _ in range(1000):
        content = field(1, field(5, field(6, content)))
    with pytest.raises(InputError, match="over 100 messages inside each other"):
        found_in(field(7, content))


def test_large_weights_cost_nothing(tmp_path: Path) -> None:
    big = helper.make_tensor("w", TensorProto.UINT8, [64 << 20], bytes(64 << 20), raw=True)
    path = tmp_path / "m.onnx"
    content = model(big)
    content.graph.initializer.append(tensor("m.data"))
    onnx.save(content, path)
    tracemalloc.start()
    try:
        assert graph_facts(path).locations == {"m.data"}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(content: bytes) -> bytes:
    """A model with one external_data entry."""
    return field(7, field(5, field(13, content)))


LOCATION = field(1, b"location")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x3a", "it is cut off"),
        (b"\x3a\x05\x00", "it is cut off"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "it is cut off"),
        (b"\x08\x80", "it is cut off"),
        (b"\x09\x00", "it is cut off"),
        (b"\x08" + b"\xff" * 11, "a number of over ten bytes"),
        (b"\xff" * 12, "a number of over ten bytes"),
        (b"\x02\x00", "field number 0"),
        (varint((1 << 32 | 7) << 3 | 2) + b"\x00", "field number "),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x0f", "wire type 7"),
        (b"\x38\x01", "a Graph of wire type 0"),
        (field(7, b"\x2a\x7f") + bytes(200), "it is cut off"),  # a length beyond its message
        (entry(LOCATION + field(2, b"\xff")), "not UTF-8"),
        (entry(LOCATION + b"\x10\x01"), "no short text"),
        (entry(LOCATION + field(2, bytes(5000))), "no short text"),
    ],
)
def test_malformed(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        found_in(content)
    assert "it is not an ONNX file" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        LOCATION + field(2, b"first") + field(2, b"last"),
        field(1, b"offset") + LOCATION + field(2, b"last"),
        field(2, b"last") + LOCATION + field(9, b"unknown") + b"\x50\x01",
        LOCATION,
        field(1, b"offset") + field(2, b"4"),
        b"",
    ],
)
def test_entries_are_read_as_protobuf_reads_them(content: bytes) -> None:
    raw = entry(content)
    assert found_in(raw) == ref_locations(ModelProto.FromString(raw))


def test_messages_given_twice_are_both_read() -> None:
    one, two = (field(5, tensor(name).SerializeToString()) for name in ("one", "two"))
    raw = field(7, one) + field(7, two)
    assert ref_locations(ModelProto.FromString(raw)) == {"one", "two"}
    assert found_in(raw) == {"one", "two"}
    attribute = b"".join(field(5, tensor(name).SerializeToString()) for name in ("one", "two"))
    raw = field(7, field(1, field(5, attribute)))
    assert found_in(raw) == ref_locations(ModelProto.FromString(raw)) == {"one", "two"}


def test_unusable_files(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name, message in (
        ("empty", "it is empty"),
        ("link", "it is a symlink"),
        ("none", "it is missing"),
        (".", "it is not a regular file"),
    ):
        with pytest.raises(InputError, match=message):
            graph_facts(tmp_path / name)


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_references, "_MAX_FIELDS", 1000)
    assert found_in(b"\x08\x01" * 1000) == set()
    with pytest.raises(InputError, match="over 1000 fields"):
        found_in(b"\x08\x01" * 1001)


def agrees(content: bytes) -> None:
    """Whatever the bytes, an InputError, or at least all that protobuf finds."""
    with contextlib.suppress(InputError):
        found = found_in(content)
        parsed = parse(content)
        assert parsed is None or found >= ref_locations(parsed)


def parse(content: bytes) -> ModelProto | None:
    try:
        parsed: ModelProto = ModelProto.FromString(content)
        return parsed
    except Exception:  # noqa: BLE001 - what it raises depends on protobuf's version
        return None


WHOLE = everywhere().SerializeToString()


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes(content: bytes) -> None:
    agrees(content)


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_any_change(place: int, new: bytes, removed: int) -> None:
    agrees(WHOLE[:place] + new + WHOLE[place + removed :] or b"\0")


def messages() -> st.SearchStrategy[bytes]:
    """Bytes that look like messages, with the numbers that lead on."""
    numbers = st.sampled_from([1, 2, 5, 6, 7, 9, 10, 11, 13, 15, 20, 22, 23, 25])
    leaves = st.sampled_from([LOCATION + field(2, b"x"), b"", b"\x08\x01", b"\xff"])
    return st.recursive(
        leaves,
        lambda inner: st.lists(st.tuples(numbers, inner), max_size=3).map(
            lambda fields: b"".join(field(number, content) for number, content in fields)
        ),
        max_leaves=8,
    )


@given(messages())
def test_any_tree(content: bytes) -> None:
    agrees(content or b"\0")


def test_cut_anywhere() -> None:
    cuts = [WHOLE[:length] for length in range(1, len(WHOLE), 7)]
    for content in cuts:
        agrees(content)
    assert np.mean([is_refused(content) for content in cuts]) > 0.9


def is_refused(content: bytes) -> bool:
    try:
        found_in(content)
    except InputError:
        return True
    return False
