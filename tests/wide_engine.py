"""The shipped engine with its weights as floats, as fp32: for what w8 cannot be tried with."""

import atexit
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from murank.folder.integrity import hash_files
from murank.folder.manifest import manifest_bytes, read_manifest

SHIPPED = Path(__file__).parents[1] / "benchmarks" / "miniature" / "engine"


def widen(file: Path) -> None:
    """Replace 8-bit weights, and the Cast and Mul behind them, by what they give."""
    model = onnx.load(str(file))
    graph = model.graph
    known = {one.name: one for one in graph.initializer}
    casts = {one.output[0]: one for one in graph.node if one.op_type == "Cast"}
    for product in [one for one in graph.node if one.op_type == "Mul"]:
        cast = casts.get(product.input[0])
        narrow = None if cast is None else known.get(cast.input[0])
        if cast is None or narrow is None or narrow.data_type != onnx.TensorProto.INT8:
            continue
        scale = known[product.input[1]]
        wide = numpy_helper.to_array(narrow).astype(np.float32) * numpy_helper.to_array(scale)
        narrow.CopyFrom(numpy_helper.from_array(wide, narrow.name))
        graph.initializer.remove(scale)
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == product.output[0]:
                    node.input[place] = narrow.name
        graph.node.remove(cast)
        graph.node.remove(product)
    data = f"{file.name}.data"
    (file.parent / data).unlink()
    onnx.save(model, str(file), save_as_external_data=True, location=data, size_threshold=1024)


def made(folder: Path) -> Path:
    """Write it, with a true manifest."""
    shutil.copytree(SHIPPED, folder)
    manifest = read_manifest(folder)
    for name in ("vision", "decoder"):
        widen(folder / "onnx" / f"{name}.onnx")
    files = hash_files(folder, list(manifest.files))
    wide = replace(manifest, precision="fp32", files=files)
    (folder / "manifest.json").write_bytes(manifest_bytes(wide))
    return folder


_place = tempfile.mkdtemp(prefix="wide-engine-")
atexit.register(shutil.rmtree, _place, ignore_errors=True)
ENGINE = made(Path(_place) / "engine")
