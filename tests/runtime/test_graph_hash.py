"""What belongs to a graph is known by the graph's own files, exactly."""

import hashlib
import json
from pathlib import Path

import onnx
import pytest
from engine_folder import make_engine, model, outside, relist, weight

from murank import InputError
from murank.folder.contents import EngineFiles
from murank.folder.graph_hash import encoder_sha256, graph_sha256, vision_sha256
from murank.folder.manifest import read_manifest

MINIATURE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"


def files_of(engine: Path) -> EngineFiles:
    return EngineFiles(engine, read_manifest(engine))


def test_what_features_depend_on() -> None:
    """Digests are in files of features that people have: they must stay."""
    said = json.loads((MINIATURE / "manifest.json").read_text())
    name = "onnx/encoder.onnx"
    text = json.dumps([said["encoder"], {name: said["files"][name]}], indent=2) + "\n"
    assert encoder_sha256(files_of(MINIATURE)) == hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """The encoder's weights have a name of their own; another file's begins like the graph's."""
    make_engine(tmp_path / "engine")
    folder = tmp_path / "engine" / "onnx"
    onnx.save(model(outside(weight(), "weights.bin")), folder / "encoder.onnx")
    (folder / "weights.bin").write_bytes(weight().raw_data)
    (folder / "encoder.onnx.txt").write_text("by whom")
    relist(folder.parent, *(f"onnx/{path.name}" for path in folder.iterdir()))
    return folder.parent


@pytest.mark.parametrize(
    ("name", "counts"),
    [("weights.bin", True), ("encoder.onnx", True), ("encoder.onnx.txt", False)],
)
def test_external_data_of_any_name_counts(engine: Path, name: str, *, counts: bool) -> None:
    files = files_of(engine)
    before = encoder_sha256(files), graph_sha256(files, "onnx/encoder.onnx")
    others = vision_sha256(files), graph_sha256(files, "onnx/vision.onnx")
    changed = model(outside(weight("v"), "weights.bin")).SerializeToString()
    (engine / "onnx" / name).write_bytes(changed)
    relist(engine, f"onnx/{name}")
    files = files_of(engine)
    after = encoder_sha256(files), graph_sha256(files, "onnx/encoder.onnx")
    assert [a != b for a, b in zip(before, after, strict=True)] == [counts, counts]
    assert (vision_sha256(files), graph_sha256(files, "onnx/vision.onnx")) == others


def test_a_graph_that_is_not_what_the_manifest_says(engine: Path) -> None:
    files = files_of(engine)
    changed = model(outside(weight(), "decoder.data")).SerializeToString()
    (engine / "onnx" / "vision.onnx").write_bytes(changed)
    with pytest.raises(InputError, match=r"vision\.onnx"):
        vision_sha256(files)
