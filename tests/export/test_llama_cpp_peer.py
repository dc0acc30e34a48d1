"""What the benchmark's llama.cpp contender does without llama.cpp."""

import sys
from collections.abc import Callable
from pathlib import Path

import llama_cpp_peer
import numpy as np
import pytest
from safetensors.numpy import load_file

from murank import MachineError


def test_the_decoder_alone_is_written(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("qwen2_vl")
    whole = load_file(folder / "model.safetensors")
    tensors = dict(llama_cpp_peer.decoder_tensors(folder, [7, 3]))
    ends = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} & set(whole)
    layers = {name for name in whole if name.startswith("model.layers.")}
    assert layers
    assert set(tensors) == layers | ends
    for name in ends - {"model.norm.weight"}:  # the answers' rows of the vocabulary, in order
        np.testing.assert_array_equal(tensors[name], whole[name][[7, 3]])
    for name in layers:
        np.testing.assert_array_equal(tensors[name], whole[name])


@pytest.mark.parametrize("missing", ["llama_cpp", "gguf"])
def test_missing_packages_are_told_once(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("llama_cpp", "gguf"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else sys)
    llama_cpp_peer.write_files(tmp_path, ["prefix_first"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MachineError, match=f"^{missing} is not installed: pip install llama-cpp"):
        llama_cpp_peer.LlamaCpp(tmp_path, "prefix_first", threads=1, count=1)
