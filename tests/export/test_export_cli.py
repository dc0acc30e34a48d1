"""`murank export` as its users meet it."""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from lora import add_lora, save_peft
from plain_encoder import model, save
from safetensors.torch import load_file, save_file

from murank.cli import main
from murank.folder.integrity import check_engine
from murank.folder.manifest import engine_sha256
from murank.folder.precision import ARITHMETIC
from murank_export.mllm.checkpoint import load_checkpoint

Capture = pytest.CaptureFixture[str]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: Capture) -> Run:
    """Export to `tmp_path/out/engine`: exit code, stdout, stderr."""

    def _run(*arguments: object) -> tuple[int, str, str]:
        output = str(tmp_path / "out" / "engine")
        code = main(["export", "-o", output, *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return _run


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    (tmp_path / "sources").mkdir()
    return save(model(), tmp_path / "sources")


@pytest.fixture
def mllm(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(checkpoint("qwen2_vl"), tmp_path / "mllm"))


def assert_refused(result: tuple[int, str, str], tmp_path: Path, message: str) -> None:
    """Exit code 2, one line behind the steps, nothing written."""
    code, out, err = result
    assert (code, out) == (2, "")
    *steps, last = err.splitlines()
    assert all(step.endswith(" ...") for step in steps)
    assert last.startswith("murank: error: ")
    assert re.search(message, last), last
    assert len(last) < 700
    assert not (tmp_path / "out").exists()


def test_an_encoder_as_json(run: Run, encoder: Path, tmp_path: Path) -> None:
    code, out, err = run("--encoder", encoder, "--json", "--quiet")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said == {**check_engine(tmp_path / "out" / "engine").to_json(), "notes": []}
    assert said["encoder"]["dim"] == 6
    assert said["scorer"] is None


def test_a_summary_of_all_parts(
    run: Run, encoder: Path, mllm: Path, tmp_path: Path, capsys: Capture
) -> None:
    """MLLM with adapter, and encoder; in int8, with options that leave their trace."""
    save_peft(add_lora(load_checkpoint(mllm).model), tmp_path / "street")
    code, out, err = run(
        "--mllm", mllm, "--adapter", tmp_path / "street", "--encoder", encoder, "--dtype", "int8",
        "--force", "--parity-pairs", 3, "--image-size", "140x112", "--tau", 2.5, "--max-pairs", 7,
    )  # fmt: skip
    assert code == 0, err
    note, *told = err.splitlines()
    assert note.endswith("street does not say which layout it was trained with")
    # A model of random weights hardly ever answers "Yes" or "No".
    assert [line.split(" ")[0] for line in told if not line.endswith(" ...")] == ["note:"]
    assert [line for line in told if line.endswith(" ...")] == [
        f"{step} ..."
        for step in (
            "encoder: export and check", "load checkpoint", "ask the PyTorch model",
            "merge adapter", "collect activations", "bake prompt", "vision graph",
            "decoder graph", "measure parity", "hash and write manifest",
        )
    ]  # fmt: skip
    first, sha256, *files, seconds, parity, share = out.splitlines()
    assert sha256 == f"sha256 {engine_sha256(tmp_path / 'out' / 'engine')}"
    engine = tmp_path / "out" / "engine"
    manifest = check_engine(engine)
    assert re.fullmatch(rf"{re.escape(str(engine))}: \d+\.\d MiB", first)
    assert [line.split()[0] for line in files] == list(manifest.files)
    assert re.fullmatch(r"seconds: .*decoder graph \d+\.\d.*; peak memory \d\.\d\d GiB", seconds)
    assert re.fullmatch(
        r"against PyTorch, 3 pairs: largest difference of a logit \d\.\de[+-]\d\d, of mu "
        r"\d\.\de[+-]\d\d; rank correlation -?\d\.\d{3}",
        parity,
    )
    assert re.fullmatch(r'"Yes" and "No" are \d+\.\d\d% of what .*', share)
    assert manifest.scorer is not None
    scorer, sources = manifest.scorer, manifest.sources
    assert (scorer.tau, scorer.max_pairs, scorer.layout) == (2.5, 7, "paper")
    assert (scorer.preprocessing.height, scorer.preprocessing.width) == (140, 112)
    assert scorer.shapes.vision_tokens == 5 * 4
    assert sources.adapter is not None
    assert (sources.adapter.name, sources.adapter.kind) == ("street", "peft")
    for file in engine.rglob("*"):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes()
    assert main(["inspect", "--verify", str(engine), "--quiet", "--providers", "cpu"]) == 0
    assert "encoder  ok" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to export: pass --mllm, --encoder, or both"),
        (("--mllm", "nowhere"), "nowhere: no such file or folder"),
        (("--encoder", "nowhere.onnx"), r"nowhere\.onnx"),
        (("--encoder", "ENCODER", "--adapter", "x"), "--adapter"),
        (("--encoder", "ENCODER", "--prompt", "x"), "--adapter"),
        (("--encoder", "ENCODER", "--image-size", "28x28"), "--image-size"),
        (("--encoder", "ENCODER", "--lora-rank", "4"), "--lora-rank"),
        (("--mllm", "MLLM", "--lora-alpha", "16"), "--lora-rank"),
        (("--mllm", "MLLM", "--encoder-size", "8x4"), "--encoder"),
        (("--mllm", "MLLM", "--adapter", "nowhere"), "nowhere: no such file or folder"),
        (("--mllm", "MLLM", "--prompt", "nowhere.json"), r"nowhere\.json"),
        (("--encoder", "ENCODER", "--tau", "0"), "tau"),
        (("--encoder", "ENCODER", "--tau", "-1"), "tau"),
        (("--encoder", "ENCODER", "--tau", "nan"), "tau"),
        (("--encoder", "ENCODER", "--tau", "inf"), "tau"),
        (("--encoder", "ENCODER", "--tau", "x"), "--tau"),
        (("--encoder", "ENCODER", "--max-pairs", "0"), "--max-pairs"),
        (("--mllm", "MLLM", "--image-size", "280"), "must be HEIGHTxWIDTH, as 280x140"),
        (("--mllm", "MLLM", "--image-size", "280x140x3"), "must be HEIGHTxWIDTH"),
        (("--mllm", "MLLM", "--image-size", "axb"), "must be HEIGHTxWIDTH"),
        (("--mllm", "MLLM", "--image-size", "0x140"), "must be at least 1"),
        (("--mllm", "MLLM", "--image-size", "280x150"), "280x150: qwen2_vl needs multiples of 28"),
        (("--mllm", "MLLM", "--dtype", "fp4"), "--dtype"),
        (("--mllm", "MLLM", "--layout", "mine"), "--layout"),
        (("--encoder", "ENCODER", "--encoder-size", "4x8"), "takes 8x4, not 4x8"),
        (("--encoder", "ENCODER", "--encoder-mean", "1,2"), "three numbers, as 0.5,0.5,0.5"),
        (("--encoder", "ENCODER", "--encoder-std", "a,b,c"), "three numbers"),
        (("--encoder", "ENCODER", "--encoder-std", "0.5,0,0.5"), "std above 0"),
        (("--encoder", "ENCODER", "--encoder-mean", "nan,0,0"), "must be finite"),
        (("--encoder", "ENCODER", "--encoder-output", "z"), "--encoder-output"),
        (("--encoder", "ENCODER", "--encoder-resample", "magic"), "invalid choice"),
    ],
)
def test_command_lines_that_cannot_be_followed(
    run: Run, encoder: Path, checkpoint: Any, tmp_path: Path, arguments: Any, message: str
) -> None:
    known = {"ENCODER": encoder, "MLLM": checkpoint("qwen2_vl")}
    assert_refused(run(*(known.get(word, word) for word in arguments)), tmp_path, message)


def test_the_help_says_where_each_precision_runs(capsys: Capture) -> None:
    assert main(["export", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    told = said[said.index("fp32 (default): anywhere") : said.index("--tau TAU temperature")]
    for precision, arithmetic in ARITHMETIC.items():
        assert re.search(rf"(^|[ ;,]){precision}[ :(,]", told), precision
        major, minor = arithmetic.least_capability
        assert (major, minor) == (7, 5) or f"{major}.{minor}" in told


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def another_model(folder: Path) -> None:
    edit_config(folder, model_type="llama")


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    no_weights(folder)


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def lost_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors[next(name for name in tensors if "q_proj.weight" in name)]
    save_file(tensors, file, {"format": "pt"})


def bad_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[next(name for name in tensors if "q_proj.weight" in name)][0, 0] = torch.nan
    save_file(tensors, file, {"format": "pt"})


def no_tokenizer(folder: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)


def no_chat_template(folder: Path) -> None:
    for file in folder.glob("chat_template*"):
        file.unlink()
    config = folder / "tokenizer_config.json"
    said = json.loads(config.read_text())
    said.pop("chat_template", None)
    config.write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_config, r"config\.json"),
        (another_model, "model_type"),
        (no_weights, r"holds no \*\.safetensors"),
        (pickled_weights, r"holds no \*\.safetensors; convert"),
        (cut_weights, r"mllm/model\.safetensors is damaged"),
        (lost_weight, r"lacks weights.*q_proj\.weight"),
        (bad_weight, "mllm: the model's own answers are NaN"),
        (no_tokenizer, "no tokenizer could be loaded"),
        (no_chat_template, "has no chat template"),
    ],
)
def test_checkpoints_that_lack_something(
    run: Run, mllm: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(mllm)
    assert_refused(run("--mllm", mllm), tmp_path, message)


@pytest.mark.parametrize("missing", ["torch", "onnx"])
def test_a_machine_that_cannot_export(
    run: Run, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    code, out, err = run("--encoder", encoder)
    assert (code, out) == (3, "")
    assert err == (
        f"murank: error: export needs {missing}: on the build machine, "
        "pip install 'murank[cpu,export]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_peft_folder_has_its_own_rank_and_alpha(
    run: Run, checkpoint: Any, tmp_path: Path
) -> None:
    mllm = checkpoint("qwen2_vl")
    peft = save_peft(add_lora(load_checkpoint(mllm).model), tmp_path / "peft")
    for option in ("--lora-alpha", "--lora-rank"):
        refused = run("--mllm", mllm, "--adapter", peft, option, 16)
        assert_refused(refused, tmp_path, "states its own alpha and rank")
