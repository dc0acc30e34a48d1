"""A small engine folder: real ONNX files with weights inside and outside, and a true manifest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from murank.folder.integrity import hash_files
from murank.folder.manifest import (
    AdapterSource,
    AnswerIds,
    EncoderPart,
    Manifest,
    MllmSource,
    ScorerPart,
    Shapes,
    Source,
    Sources,
    manifest_bytes,
)
from murank.images.preprocess import Preprocessing
from murank.prompt.template import default_template

FILES = (
    "onnx/encoder.onnx",
    "onnx/vision.onnx",
    "onnx/vision.data",
    "onnx/decoder.onnx",
    "onnx/decoder.data",
    "prompt.safetensors",
    "golden.safetensors",
    "parity.json",
)
PARITY = {
    "scorer": {
        "reference": "PyTorch float32, whole two-image prompts",
        "pairs": 64,
        "max_abs_logit": 1.4901161193847656e-04,
        "max_abs_mu": 8.568167686462402e-08,
        "spearman": 0.99987,
        "same_first": True,
    }
}
_MEAN, _STD = (0.5, 0.4, 0.3), (0.25, 0.25, 0.2)


def outside(tensor: TensorProto, location: str) -> TensorProto:
    """Let a tensor refer to external data; nothing is written there."""
    onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=16)
    tensor.ClearField("raw_data")
    return tensor


def weight(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.arange(4, dtype=np.float32), name)


def model(initializer: TensorProto) -> onnx.ModelProto:
    """Add a weight to the input."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    node = helper.make_node("Add", ["x", initializer.name], ["y"])
    graph = helper.make_graph([node], "add", [values[0]], [values[1]], [initializer])
    return helper.make_model(graph)


def make_engine(folder: Path) -> Manifest:
    """Write the folder and return its manifest."""
    (folder / "onnx").mkdir(parents=True)
    onnx.save(model(weight()), folder / "onnx/encoder.onnx")
    for name in ("vision", "decoder"):
        onnx.save(model(outside(weight(), f"{name}.data")), folder / f"onnx/{name}.onnx")
        (folder / f"onnx/{name}.data").write_bytes(weight().raw_data)
    for name in ("prompt", "golden"):
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    (folder / "parity.json").write_text(json.dumps(PARITY))
    manifest = make_manifest(folder)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return manifest


def make_manifest(folder: Path) -> Manifest:
    template = default_template()
    return Manifest(
        murank_version="0.1.0",
        precision="fp16",
        sources=Sources(
            mllm=MllmSource("tiny-vl", "qwen2_vl", "1" * 64),
            adapter=AdapterSource("street", "peft", "2" * 64),
            encoder=Source("osnet", "3" * 64),
        ),
        encoder=EncoderPart(
            "onnx/encoder.onnx", 512, Preprocessing(256, 128, shortest_edge=256), _MEAN, _STD
        ),
        scorer=ScorerPart(
            vision="onnx/vision.onnx",
            decoder="onnx/decoder.onnx",
            prompt="prompt.safetensors",
            preprocessing=Preprocessing(280, 140),
            mean=_MEAN,
            std=_STD,
            layout="prefix_first",
            template=template.to_json(),
            template_sha256=template.sha256,
            answer_ids=AnswerIds(no=2, yes=9),
            tau=1.5,
            max_pairs=64,
            shapes=Shapes(
                layers=4, kv_heads=2, head_dim=16, hidden=64, levels=1,
                vision_tokens=50, static_tokens=235, prefill_tokens=52, suffix_tokens=59,
            ),
        ),
        calibration=None,
        golden="golden.safetensors",
        parity="parity.json",
        files=hash_files(folder, FILES),
    )  # fmt: skip


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change what manifest.json says."""
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def relist(folder: Path, *names: str) -> None:
    """Let the manifest list these files as they are now, besides those it lists."""
    entries = {name: entry.to_json() for name, entry in hash_files(folder, names).items()}
    edit_manifest(folder, lambda data: data["files"].update(entries))
