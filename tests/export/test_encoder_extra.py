"""A Hugging Face encoder where its extra is not installed, and where transformers 5 is."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from murank.cli import main


@pytest.mark.parametrize("version", ["4.57.6", "5.24.0"])
def test_one_sentence_with_the_command(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    version: str,
) -> None:
    folder = tmp_path / "vit"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    how = {"size": {"height": 64, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": how}))
    for name in ("optimum", "optimum.exporters", "optimum.exporters.onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    # transformers puts another module into its own place: the one of now is meant.
    monkeypatch.setattr(importlib.import_module("transformers"), "__version__", version)
    out = tmp_path / "engine"
    assert main(["export", "--encoder", str(folder), "-o", str(out), "--quiet"]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install 'murank[hf-encoders]'" in said
    assert ("5.24.0" in said) == (version == "5.24.0")
    assert not out.exists()
