"""Files of an encoder: weights inside and outside, notes of its maker, the real OSNet."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from plain_encoder import DIM, SIZE, by_hand, exported, images, model, normalised, save, unit
from real_data import OSNET

from murank import InputError
from murank.backends.onnx.session import Session, SessionSettings
from murank.folder.onnx_references import graph_facts
from murank_export import EncoderSettings
from murank_export.encoders import encoder_graph
from murank_export.encoders.encoder_graph import IMAGENET_MEAN, IMAGENET_STD, export_encoder


def save_apart(folder: Path) -> Path:
    """The plain encoder with its weights in a file beside it."""
    source = folder / "source.onnx"
    onnx.save(
        model(), source, save_as_external_data=True, location="far.bin", size_threshold=0,
        convert_attribute=False,
    )  # fmt: skip
    assert graph_facts(source).locations == {"far.bin"}
    return source


def test_weights_outside_are_taken_in(tmp_path: Path) -> None:
    _, found = exported(save_apart(tmp_path))
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)
    assert graph_facts(tmp_path / "encoder.onnx").locations == set()
    assert {file.name for file in tmp_path.iterdir()} == {"source.onnx", "far.bin", "encoder.onnx"}


def test_weights_outside_that_are_missing(tmp_path: Path) -> None:
    source = save_apart(tmp_path)
    (tmp_path / "far.bin").unlink()
    with pytest.raises(InputError, match=r"source\.onnx"):
        exported(source)


def test_weights_outside_that_git_lfs_left_out(tmp_path: Path) -> None:
    source = save_apart(tmp_path)
    (tmp_path / "far.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a\n")
    with pytest.raises(InputError, match=r"far\.bin is a Git LFS pointer"):
        exported(source)


def test_large_weights_go_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_graph, "_EXTERNAL_FROM", 1000)
    made = model()
    large = numpy_helper.from_array(np.zeros((DIM, 3, *SIZE), np.float32), "unused")
    made.graph.initializer.append(large)
    source = save(made, tmp_path)
    _, found = exported(source)
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)
    assert graph_facts(tmp_path / "encoder.onnx").locations == {"encoder.onnx.data"}
    assert (tmp_path / "encoder.onnx.data").stat().st_size >= large.ByteSize() - 100


class Torch(torch.nn.Module):
    """The same kind of encoder by PyTorch, which writes source lines into its graphs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, DIM, SIZE)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] -> [B,D]."""
        rows: torch.Tensor = self.layer(images)
        return rows.flatten(1)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_nothing_of_its_maker_stays(tmp_path: Path) -> None:
    module = Torch().eval()
    program: Any = torch.onnx.export(
        module, (torch.zeros(2, 3, *SIZE),), dynamo=True, opset_version=18, input_names=["images"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},), verbose=False,
    )  # fmt: skip
    program.save(str(tmp_path / "source.onnx"))
    here = str(Path(__file__).parent).encode()
    assert here in (tmp_path / "source.onnx").read_bytes()
    _, found = exported(tmp_path / "source.onnx")
    assert here not in (tmp_path / "encoder.onnx").read_bytes()
    with torch.inference_mode():
        x = torch.from_numpy(normalised(images(), IMAGENET_MEAN, IMAGENET_STD))
        np.testing.assert_allclose(found, unit(module(x).numpy()), atol=1e-6)


def test_notes_wherever_they_may_be(tmp_path: Path) -> None:
    made, note = model(), "/home/maker/secret"
    made.doc_string = made.graph.doc_string = note
    for part in (*made.graph.node, *made.graph.initializer, *made.graph.input, *made.graph.output):
        part.doc_string = note
    for holder in (made, made.graph, made.graph.node[0], made.graph.initializer[0]):
        holder.metadata_props.add(key="source", value=note)
    exported(save(made, tmp_path))
    assert b"secret" not in (tmp_path / "encoder.onnx").read_bytes()


@pytest.mark.parametrize("ir_version", [3, 4])
def test_old_files_list_weights_among_the_inputs(tmp_path: Path, ir_version: int) -> None:
    made = model(opset=9, ir_version=ir_version)
    for value in made.graph.initializer:
        shape = onnx.helper.make_tensor_value_info(value.name, value.data_type, value.dims)
        made.graph.input.append(shape)
    _, found = exported(save(made, tmp_path))
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)


def test_an_image_without_a_feature(tmp_path: Path) -> None:
    """A row of zeros has no direction; it stays zero and does not become NaN."""
    made = model()
    for value in made.graph.initializer:
        zeros = np.zeros(tuple(value.dims), np.float32)
        value.CopyFrom(numpy_helper.from_array(zeros, value.name))
    _, found = exported(save(made, tmp_path))
    np.testing.assert_array_equal(found, np.zeros((5, DIM)))


@pytest.mark.skipif(not OSNET.exists(), reason="the real OSNet is not on this machine")
def test_the_real_osnet(tmp_path: Path) -> None:
    made = export_encoder(OSNET, tmp_path / "encoder.onnx", EncoderSettings())
    size = (made.preprocessing.height, made.preprocessing.width)
    assert (size, made.dim) == ((256, 128), 512)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, *size), dtype=np.uint8)
    pixels[1] //= 4  # a dark one
    original = onnxruntime.InferenceSession(str(OSNET), providers=["CPUExecutionProvider"])
    x = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    (wanted,) = original.run(None, {original.get_inputs()[0].name: x})
    session = Session(tmp_path / "encoder.onnx", SessionSettings("cpu"))
    (found,) = session.run({"images": pixels}, ["features"])
    np.testing.assert_allclose(found.numpy(), unit(wanted), atol=1e-5)
