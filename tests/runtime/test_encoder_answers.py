"""An encoder that gives something else than the manifest says, or no numbers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from engine_folder import relist
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from murank import Engine, InputError, Searcher
from murank.cli import main

pytest.importorskip("onnxruntime")
MINIATURE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
WHITE = np.full((64, 32, 3), 255, np.uint8)
GREY = np.full((64, 32, 3), 77, np.uint8)


def features(*nodes: NodeProto, dim: int, kind: int = TensorProto.FLOAT) -> bytes:
    """Images [B,3,H,W] -> whatever the nodes make of their mean [B,1], times ones [1,dim]."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, None, None])
    out = helper.make_tensor_value_info("features", kind, ["batch", None])
    first = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean4"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Flatten", ["mean4"], ["mean"]),
        helper.make_node("Mul", ["mean", "ones"], ["rows"]),
    ]
    ones = numpy_helper.from_array(np.ones((1, dim), np.float32), "ones")
    graph = helper.make_graph([*first, *nodes], "encoder", [images], [out], [ones])
    opsets = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=8
    ).SerializeToString()
    return content


UNIT = helper.make_node("LpNormalization", ["rows"], ["features"], axis=-1, p=2)
# sqrt(250 - mean): NaN for what is nearly white, a number for noise.
TOO_BRIGHT = (
    helper.make_node("Constant", [], ["limit"], value_float=250.0),
    helper.make_node("Sub", ["limit", "rows"], ["left"]),
    helper.make_node("Sqrt", ["left"], ["root"]),
    helper.make_node("LpNormalization", ["root"], ["features"], axis=-1, p=2),
)
HALF = (
    helper.make_node("Cast", ["rows"], ["features"], to=TensorProto.FLOAT16),
)  # fmt: skip


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MINIATURE, tmp_path / "engine"))


@pytest.fixture
def dim() -> int:
    from murank.folder.manifest import read_manifest

    part = read_manifest(MINIATURE).encoder
    assert part is not None
    return part.dim


def put(engine: Path, content: bytes) -> Path:
    (engine / "onnx/encoder.onnx").write_bytes(content)
    relist(engine, "onnx/encoder.onnx")
    return engine


def load(engine: Path) -> Engine:
    return Engine.from_pretrained(engine, parts=["encoder"], providers="cpu", threads=1)


def test_another_width(engine: Path, dim: int, capsys: pytest.CaptureFixture[str]) -> None:
    put(engine, features(UNIT, dim=dim + 1))
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        load(engine)
    assert main(["inspect", "--verify", "--quiet", str(engine)]) == 2
    assert "encoder.onnx" in capsys.readouterr().err


def test_another_type(engine: Path, dim: int) -> None:
    put(engine, features(*HALF, dim=dim, kind=TensorProto.FLOAT16))
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        load(engine)


def test_one_row_for_all_images(engine: Path, dim: int) -> None:
    mean = helper.make_node("ReduceMean", ["rows"], ["features"], axes=[0], keepdims=1)
    loaded = load(put(engine, features(mean, dim=dim)))
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        loaded.embed([GREY, GREY])


def test_never_a_number(engine: Path, dim: int) -> None:
    log = helper.make_node("Log", ["zero"], ["features"])
    zero = helper.make_node("Sub", ["rows", "rows"], ["zero"])
    put(engine, features(zero, log, dim=dim))
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        load(engine)


def test_an_image_whose_feature_is_no_number(engine: Path, dim: int, tmp_path: Path) -> None:
    loaded = load(put(engine, features(*TOO_BRIGHT, dim=dim)))
    np.testing.assert_allclose(np.linalg.norm(loaded.embed([GREY, GREY]), axis=1), 1, rtol=1e-6)
    with pytest.raises(InputError, match=r"encoder\.onnx"):  # of the second run
        loaded.embed([*[GREY] * 33, WHITE])
    file = tmp_path / "white.png"
    Image.fromarray(WHITE).save(file)
    with pytest.raises(InputError, match=r"white\.png"):
        loaded.embed([GREY, file])
    with pytest.raises(InputError, match=r"white\.png"):
        Searcher.from_images(loaded, [GREY, GREY, file])
    searcher = Searcher.from_images(loaded, [GREY, GREY])
    for search in (searcher.search, lambda image: searcher.search_many([image])):
        with pytest.raises(InputError, match=r"white\.png"):
            search(file)
