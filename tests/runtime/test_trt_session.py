"""Plans at run time: what is checked before loading, and that answers are those of the graphs."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from trt_fakes import FakeEngine, FakeGpu, FakeTensorRT, plan_session
from wide_engine import ENGINE

from murank import Engine, InputError, MachineError, UsageError
from murank.backends.plan_folder import plans_of
from murank.backends.trt import BuildSettings, PlanSession, build_plans, this_machine
from murank.backends.trt import session as _session
from murank.backends.trt.api import make_logger
from murank.backends.trt.loader import Loaded
from murank.folder.contents import EngineFiles
from murank.folder.manifest import read_manifest

BF16 = 16  # onnx.TensorProto


@pytest.fixture
def engine(tmp_path: Path, gpu: FakeGpu, trt: FakeTensorRT) -> Path:
    del gpu, trt
    return Path(shutil.copytree(ENGINE, tmp_path / "engine"))


def build(engine: Path, **settings: Any) -> Path:
    return build_plans(engine, BuildSettings(**settings), this_machine()).folder


def on_plans(engine: Path, **options: Any) -> Engine:
    return Engine.from_pretrained(engine, providers="tensorrt-plans", **options)


def crops(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    return list(random.integers(0, 256, (count, 64, 32, 3), np.uint8))


def test_the_engine_answers_as_on_the_cpu(engine: Path, trt: FakeTensorRT) -> None:
    cpu = Engine.from_pretrained(engine, providers="cpu", threads=1)
    build(engine)
    plans = on_plans(engine)
    assert list(plans.providers) == ["encoder", "vision", "decoder"]
    assert all(used == ["TensorRT 10.3.0 plan"] for used in plans.providers.values())
    images = crops(12)
    np.testing.assert_allclose(plans.embed(images), cpu.embed(images), atol=1e-5)
    wanted = cpu.mu(images[0], images[1:])
    np.testing.assert_allclose(plans.mu(images[0], images[1:]), wanted, atol=1e-5)
    (prefill, first), (scoring, second) = [run for run in trt.runs if "vision" in run[1]]
    assert (prefill, scoring) == (0, 1)
    assert (first["vision"][:2], second["vision"][:2]) == ((1, 1), (1, 11))


def test_vision_tokens_never_leave_the_device(engine: Path, gpu: FakeGpu) -> None:
    """From the vision tower through the cache into the decoder: two logits a pair come back."""
    build(engine)
    plans = on_plans(engine)
    images = crops(5)
    gpu.downloads = 0  # the encoder was tried when it was loaded
    first = plans.mu(images[0], images[1:])
    assert gpu.downloads == 1
    uploads, copies = gpu.uploads, len(gpu.copied)
    np.testing.assert_array_equal(plans.mu(images[0], images[1:]), first)
    assert gpu.downloads == 2
    assert gpu.uploads == uploads  # the cache knows the images, and the scorer the prefix
    assert len(gpu.copied) > copies
    again = plans.mu(images[0], images[:0:-1])
    np.testing.assert_allclose(again, first[::-1], atol=1e-6)


def test_a_block_of_rows(engine: Path) -> None:
    build(engine)
    session, decoder = vision(engine), plan_session(engine, "onnx/decoder.onnx")
    assert session.memory == decoder.memory == ("tensorrt", "cuda", 0)
    images = np.random.default_rng(2).integers(0, 256, (3, *shape_of(engine)), np.uint8)
    (tokens,) = session.run({"images": images}, ["tokens"])
    block = session.row_block("tokens", 4, tokens.shape[1:], tokens.dtype)
    assert block is not None
    block.write(3, tokens, 1)
    found = block.gathered(np.array([[3]])).numpy()
    np.testing.assert_array_equal(found[0, 0], tokens.numpy()[1])
    assert session.row_block("tokens", 4, tokens.shape[1:], np.dtype(np.float16)) is None


def test_more_queries_than_the_plan_was_built_for(engine: Path, trt: FakeTensorRT) -> None:
    """Built for two at once, asked for five: in parts, each where it belongs."""
    cpu = Engine.from_pretrained(engine, providers="cpu", threads=1)
    build(engine, max_queries=2, candidates=4)
    plans = on_plans(engine, max_pairs=12)
    images = crops(20, seed=3)
    queries, candidates = images[:5], [images[5 + 2 * i : 7 + 2 * i] for i in range(5)]
    wanted = cpu.mu_many(queries, candidates)
    np.testing.assert_allclose(plans.mu_many(queries, candidates), wanted, atol=1e-5)
    assert len({round(float(mu), 4) for mu in wanted.flat}) == wanted.size  # not all alike
    counts = [shapes["vision"][0] for _, shapes in trt.runs if "vision" in shapes]
    assert counts == [2, 2, 1, 2, 2, 1]
    wanted = cpu.mu(images[0], images[1:4], order="swapped")
    found = plans.mu(images[0], images[1:4], order="swapped")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_more_candidates_than_the_plan_was_built_for(engine: Path) -> None:
    build(engine, candidates=4)
    images = crops(6)
    assert on_plans(engine, max_pairs=4).mu(images[0], images[1:]).shape == (5,)
    scorer = on_plans(engine).scorer
    assert scorer is not None
    assert [len(range(5)[part]) for part in scorer.batches(5)] == [2, 3]  # and not all at once
    assert (scorer.queries_at_once(4), scorer.queries_at_once(5)) == (8, 1)
    np.testing.assert_allclose(
        on_plans(engine).mu(images[0], images[1:]),
        Engine.from_pretrained(engine, providers="cpu").mu(images[0], images[1:]),
        atol=2e-3,
    )


def test_values_stay_on_the_device(engine: Path, gpu: FakeGpu, trt: FakeTensorRT) -> None:
    build(engine)
    session = plan_session(engine, "onnx/vision.onnx")
    images = np.random.default_rng(1).integers(0, 256, (3, *shape_of(engine)), np.uint8)
    before = gpu.uploads
    on_device = session.to_device(images)
    (first,) = session.run({"images": on_device}, ["tokens"])
    (second,) = session.run({"images": images}, ["tokens"])
    assert gpu.uploads == before + 2
    assert first.numpy().tobytes() == second.numpy().tobytes()
    assert first.__cuda_array_interface__["stream"] == gpu.stream
    assert gpu.depth == 0
    assert [profile for profile, _ in trt.runs[-2:]] == [1, 1]
    session.run({"images": images[:1]}, ["tokens"])
    assert trt.runs[-1][0] == 0  # the one that was tuned for a single image


def shape_of(engine: Path) -> tuple[int, int, int]:
    how = json.loads((engine / "manifest.json").read_text())["scorer"]["preprocessing"]
    return 3, how["height"], how["width"]


def test_what_a_session_refuses(engine: Path, trt: FakeTensorRT) -> None:
    build(engine)
    session = plan_session(engine, "onnx/vision.onnx")
    images = np.zeros((1, *shape_of(engine)), np.uint8)
    session.expect({"images": (None, *shape_of(engine))}, {"tokens": (None, None, None, None)})
    for inputs, outputs, what in (
        ({"images": (None, 4, None, None)}, {}, r"images is \(None, 3"),
        ({"crops": (None,)}, {}, "crops is missing"),
        ({"tokens": (None,)}, {}, "tokens is"),
        ({}, {"images": (None,)}, "images is"),
    ):
        with pytest.raises(InputError, match=rf"vision\.onnx: {what}.*export the engine again"):
            session.expect(inputs, outputs)
    with pytest.raises(InputError, match="images"):
        session.run({"images": images.astype(np.float32)}, ["tokens"])
    with pytest.raises(InputError, match="these inputs differ: crops, images"):
        session.run({"crops": images}, ["tokens"])
    with pytest.raises(InputError, match=r"not built for images \(0, 3"):
        session.run({"images": images[:0]}, ["tokens"])
    trt.refuse_run = True
    with pytest.raises(MachineError, match=r"the plan did not run .*murank build again"):
        session.run({"images": images}, ["tokens"])


def bfloat16_session(
    tmp_path: Path, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch, kind: int
) -> PlanSession:
    """past [q,2] of a type, x [q,2] float32 -> present = past + x of that type, logits float32."""
    import onnx
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["past"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "x"], ["logits"]),
        helper.make_node("Cast", ["logits"], ["present"], to=kind),
    ]
    graph = helper.make_graph(
        nodes, "graph", [given("past", kind, ["q", 2]), given("x", TensorProto.FLOAT, ["q", 2])],
        [given("present", kind, ["q", 2]), given("logits", TensorProto.FLOAT, ["q", 2])],
    )  # fmt: skip
    file = tmp_path / "graph.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)
    limits = {name: [[1, 2], [2, 2], [4, 2]] for name in ("past", "x")}
    network: Any = SimpleNamespace()
    parser: Any = trt.OnnxParser
    parser(network, None).parse_from_file(str(file))
    made = FakeEngine(trt, network.graph, [limits])
    machine = this_machine()
    loaded = Loaded(machine, make_logger(machine.api), None, made)
    monkeypatch.setattr(_session, "load_plan", lambda *_: loaded)
    return PlanSession(EngineFiles(tmp_path), file.name)


def test_bfloat16_goes_round_on_the_device(
    tmp_path: Path, trt: FakeTensorRT, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bfloat16_session(tmp_path, trt, monkeypatch, BF16)
    session.expect({"past": (None, 2)}, {"present": (None, 2)})
    baked = np.array([[1.0, -0.5]], np.float32)  # bfloat16 has these
    x = np.array([[0.25, 1 / 512]], np.float32)
    past = session.to_device(baked, "past")
    assert past.nbytes == 4
    (present, logits) = session.run({"past": past, "x": x}, ["present", "logits"])
    np.testing.assert_array_equal(logits.numpy(), baked + x)
    np.testing.assert_array_equal(present.numpy(), [[1.25, -0.498046875]])
    before = gpu.uploads
    (again,) = session.run({"past": present, "x": session.to_device(0 * x, "x")}, ["logits"])
    assert gpu.uploads == before + 1  # x alone
    np.testing.assert_array_equal(again.numpy(), present.numpy())
    for wrong in (baked, session.to_device(baked), baked.astype(np.uint16)):
        with pytest.raises(InputError, match=r"past must be bfloat16, got (float32|uint16)"):
            session.run({"past": wrong, "x": x}, ["logits"])
    with pytest.raises(InputError, match="x must be float32, got bfloat16"):
        session.run({"past": past, "x": past}, ["logits"])


def test_parts_that_begin_where_no_address_is_taken(
    tmp_path: Path, trt: FakeTensorRT, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four rows at once are the most: the second part lies 16 and 32 bytes behind the first."""
    session = bfloat16_session(tmp_path, trt, monkeypatch, BF16)
    past, x = np.arange(24, dtype=np.float32).reshape(2, 6, 2)
    inputs = {"past": session.to_device(past, "past"), "x": x}
    gpu.copied.clear()
    present, logits = session.run(inputs, ["present", "logits"])
    assert sorted(gpu.copied) == [8, 8, 16, 16]  # the second part alone, in and out
    np.testing.assert_array_equal(logits.numpy(), past + x)
    np.testing.assert_array_equal(present.numpy(), past + x)  # bfloat16 has these


@pytest.mark.usefixtures("gpu")
def test_a_type_that_no_value_has(
    tmp_path: Path, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt, "DataType", SimpleNamespace(BF16="another"))
    with pytest.raises(InputError, match=r"past is bfloat16, which is no type of an engine's val"):
        bfloat16_session(tmp_path, trt, monkeypatch, BF16)


def vision(engine: Path) -> PlanSession:
    return plan_session(engine, "onnx/vision.onnx")


def test_a_closed_session_frees_its_plan(engine: Path) -> None:
    build(engine)
    session = plan_session(engine, "onnx/vision.onnx")
    session.close()
    assert session._loaded is None
    with pytest.raises(InputError, match=r"vision\.onnx was closed"):
        session.run({"images": np.zeros((1, *shape_of(engine)), np.uint8)}, ["tokens"])


def test_without_plans(engine: Path, gpu: FakeGpu) -> None:
    with pytest.raises(
        MachineError, match=r"engine has no TensorRT plans for tensorrt 10\.3.*there"
    ):
        vision(engine)
    build(engine, parts=("encoder",))
    with pytest.raises(MachineError, match="has no plan of the vision: run murank build"):
        vision(engine)
    gpu.driver = "12.8"
    with pytest.raises(MachineError, match=r"another device, driver or TensorRT only, none for"):
        vision(engine)


def test_nothing_that_is_wrong_is_deserialised(
    engine: Path, tmp_path: Path, trt: FakeTensorRT
) -> None:
    folder = build(engine)
    plan = folder / "vision.plan"
    whole = plan.read_bytes()
    for damage in (whole[:-1], whole[:-1] + b"!", b""):
        plan.write_bytes(damage)
        with pytest.raises(InputError, match=r"vision\.plan"):
            vision(engine)
    plan.unlink()
    plan.symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"vision\.plan"):
        vision(engine)
    plan.unlink()
    plan.write_bytes(whole)
    vision(engine)
    assert trt.deserialised == 1


def test_plans_that_came_with_an_engine_are_not_looked_at(
    engine: Path, tmp_path: Path, trt: FakeTensorRT
) -> None:
    """Whole, for the very same kind of device, with right hashes; but not in this user's folder."""
    folder = build(engine)
    shutil.copytree(folder.parents[1], tmp_path / "plans")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(MachineError, match="has no TensorRT plans"):
        vision(engine)
    (tmp_path / "plans").rename(engine / "plans")
    with pytest.raises(InputError, match="'plans'"):
        on_plans(engine)
    assert trt.deserialised == 0


def test_a_record_that_is_damaged(engine: Path, trt: FakeTensorRT) -> None:
    file = build(engine) / "record.json"
    record = json.loads(file.read_text())
    record["plans"]["vision"]["file"]["size"] += 1
    for content in (json.dumps(record), "{}", "", json.dumps({**record, "seal": ""})):
        file.write_text(content)
        with pytest.raises(InputError, match=r"murank build again|record\.json"):
            vision(engine)
    assert trt.deserialised == 0


def test_plans_moved_to_another_devices_name_are_refused(engine: Path, gpu: FakeGpu) -> None:
    folder = build(engine)
    gpu.name = "Another"
    folder.rename(folder.with_name(this_machine().target.fingerprint))
    with pytest.raises(InputError, match=r"or for tensorrt 10\.3\.0 on Fake Orin"):
        vision(engine)


def test_plans_of_another_engine_are_refused(engine: Path, trt: FakeTensorRT) -> None:
    folder = build(engine)
    manifest = json.loads((engine / "manifest.json").read_text())
    manifest["files"]["onnx/vision.onnx.data"]["sha256"] = "0" * 64
    (engine / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MachineError, match="has no TensorRT plans"):
        vision(engine)
    folder.parent.rename(plans_of(read_manifest(engine)))
    with pytest.raises(InputError, match="holds plans of another engine"):
        vision(engine)
    assert trt.deserialised == 0


def test_the_manifest_that_was_checked_counts(engine: Path, trt: FakeTensorRT) -> None:
    """What the folder says by the time the plan is loaded is another engine's."""
    build(engine)
    files = EngineFiles(engine, read_manifest(engine))
    (engine / "manifest.json").write_text("{}")
    PlanSession(files, "onnx/vision.onnx")
    assert trt.deserialised == 1


def test_files_that_have_no_plan(engine: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no engine's folder"):
        PlanSession(EngineFiles(tmp_path), "vision.onnx")
    with pytest.raises(InputError, match=r"other\.onnx"):
        plan_session(engine, "onnx/other.onnx")


def test_a_plan_that_does_not_load(engine: Path, trt: FakeTensorRT) -> None:
    build(engine)
    trt.refuse_load = True
    with pytest.raises(MachineError, match=r"could not load the plan \(no memory left\)"):
        vision(engine)


def test_the_library_that_has_plans_is_taken(
    engine: Path, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(engine)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(version="10.9.0"))
    with pytest.raises(MachineError, match=r"none for tensorrt 10\.9\.0"):
        vision(engine)
    rtx = FakeTensorRT("tensorrt_rtx", "1.7")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    folder = build_plans(engine, BuildSettings(), this_machine("rtx")).folder
    assert not (folder / "timing.cache").exists()
    with pytest.raises(UsageError, match=r"RTX 1\.7 measures nothing when it builds"):
        build_plans(engine, BuildSettings(timing_cache=engine / "t"), this_machine("rtx"))
    assert vision(engine).providers == ["TensorRT-RTX 1.7 plan"]
    assert (trt.deserialised, rtx.deserialised) == (0, 1)
    (_, config) = rtx.built[0]
    assert config.num_compute_capabilities == 1
    assert config.compute_capabilities == {0: rtx.ComputeCapability.SM87}
