"""One row an image, of whatever an encoder gives: tokens, maps, several outputs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from plain_encoder import NONE, ROUNDING, images, model, normalised, save, unit
from refusal import refusing

from murank import InputError
from murank.backends.onnx.session import Session, SessionSettings
from murank_export import EncoderSettings
from murank_export.encoders.colours import IMAGENET_MEAN, IMAGENET_STD
from murank_export.encoders.encoder_graph import export_encoder


def map_of(*, last: bool = False) -> onnx.ModelProto:
    """A map [B,5,8,4] of products of colours, or [B,8,4,5] of such images."""
    made = model(dims=("batch", 8, 4, 3) if last else ("batch", 3, 8, 4))
    mixed = np.random.default_rng(2).standard_normal((3, 5)).astype(np.float32)
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.initializer.append(numpy_helper.from_array(mixed, "w"))
    turned = [] if last else [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1])]
    product = helper.make_node("MatMul", ["x" if last else "t", "w"], ["y" if last else "m"])
    back = [] if last else [helper.make_node("Transpose", ["m"], ["y"], perm=[0, 3, 1, 2])]
    made.graph.node.extend([*turned, product, *back])
    return made


def tokens() -> onnx.ModelProto:
    """The same as tokens [B,32,5]."""
    made = map_of(last=True)
    made.graph.initializer.append(numpy_helper.from_array(np.array([0, 32, 5]), "shape"))
    made.graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["tokens"]))
    made.graph.output[0].name = "tokens"
    return made


def places() -> NDArray[np.float64]:
    """[B,32,5]: what each place of an image gives."""
    mixed = np.random.default_rng(2).standard_normal((3, 5)).astype(np.float32)
    x = normalised(images(), IMAGENET_MEAN, IMAGENET_STD).transpose(0, 2, 3, 1)
    found: NDArray[np.float64] = x.reshape(5, 32, 3).astype(np.float64) @ mixed
    return found


POOLED = {
    "cls": lambda at: at[:, 0],
    "avg": lambda at: at.mean(1),
    "max": lambda at: at.max(1),
    "gem": lambda at: (np.maximum(at, 1e-6) ** 3).mean(1) ** (1 / 3),
}


@pytest.mark.parametrize("pool", POOLED)
@pytest.mark.parametrize("of", ["map", "map, colours last", "tokens"])
def test_pooled(tmp_path: Path, of: str, pool: str) -> None:
    made = tokens() if of == "tokens" else map_of(last="last" in of)
    file, settings = tmp_path / "encoder.onnx", EncoderSettings(pool=pool)
    if pool == "cls" and of != "tokens":
        with pytest.raises(InputError, match="--encoder-pool"):
            export_encoder(save(made, tmp_path), file, settings)
        return
    export_encoder(save(made, tmp_path), file, settings)
    (found,) = Session(file, SessionSettings("cpu")).run({"images": images()}, ["features"])
    np.testing.assert_allclose(found.numpy(), unit(POOLED[pool](places())), atol=ROUNDING)


@pytest.mark.parametrize("batch", ["batch", 1])
def test_a_map_is_not_flattened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: str | int
) -> None:
    made = map_of()
    if batch == 1:
        made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    source = save(made, tmp_path)
    said = refusing(tmp_path, capsys)(
        "export", "--encoder", source, "-o", tmp_path / "engine", names=source
    )
    assert "[B,5,8,4]" in said
    assert "--encoder-pool avg" in said


def test_which_token_is_taken_is_said(tmp_path: Path) -> None:
    notes = list[str]()
    source = save(tokens(), tmp_path)
    export_encoder(source, tmp_path / "encoder.onnx", NONE, notes.append)
    assert len(notes) == 1
    assert "[B,32,5]" in notes[0]
    assert "--encoder-pool" in notes[0]


def two(*names: str) -> onnx.ModelProto:
    """The plain encoder's features, and their negatives."""
    made = model()
    made.graph.node.append(helper.make_node("Neg", ["y"], [names[1]]))
    made.graph.node.append(helper.make_node("Identity", ["y"], [names[0]]))
    del made.graph.output[:]
    made.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    return made


def test_the_output_that_is_named_like_features(tmp_path: Path) -> None:
    source, notes = save(two("Embedding", "logits"), tmp_path), list[str]()
    export_encoder(source, tmp_path / "encoder.onnx", NONE, notes.append)
    assert "'Embedding'" in notes[0]
    assert "--encoder-output" in notes[0]
    assert "logits" in notes[0]
    with pytest.raises(InputError, match=r"one of feat .*, features"):
        export_encoder(save(two("feat", "features"), tmp_path), tmp_path / "encoder.onnx", NONE)
