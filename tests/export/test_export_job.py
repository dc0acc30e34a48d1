"""The export job: a whole folder that tells the truth and nothing of its maker, or none at all."""

import hashlib
import json
import stat
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from plain_encoder import DIM, model, save
from safetensors.numpy import load_file

from murank import InputError, OutputError, ParityError, __version__
from murank.engine.golden import resized
from murank.files import exchange as _exchange
from murank.folder.integrity import check_engine
from murank.folder.manifest import read_manifest
from murank.folder.onnx_references import graph_facts
from murank.folder.precision import Precision
from murank.images import Preprocessing
from murank.prompt import AnswerWords, default_template
from murank_export import Exported, ExportSettings, export_engine
from murank_export.engine import export_engine as job
from murank_export.engine.export_scorer import _answer_notes, _check_float16
from murank_export.engine.parity import scorer_parity
from murank_export.engine.staging import staged
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.mllm.reference import Reference, ask
from murank_export.mllm.tokens import answer_ids, prompt_tokens

Export = Callable[..., Exported]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A plain encoder in a folder of its own."""
    (tmp_path / "sources").mkdir()
    return save(model(), tmp_path / "sources")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where engines go, alone in its folder."""
    (tmp_path / "engines").mkdir()
    return tmp_path / "engines" / "engine"


def content(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def beside(output: Path) -> list[str]:
    """What lies where the engine goes."""
    return [path.name for path in output.parent.iterdir()]


def fail(*_arguments: object, **_options: object) -> Any:
    raise RuntimeError("a late failure")


def test_an_encoder_alone(source: Path, output: Path) -> None:
    said: list[str] = []
    made = export_engine(ExportSettings(output, encoder=source), said.append)
    assert made.folder == output
    assert made.manifest == check_engine(output)
    assert said == ["encoder: export and check ...", "hash and write manifest ..."]
    assert list(made.seconds) == ["encoder: export and check", "hash and write manifest"]
    assert set(content(output)) == {"manifest.json", "golden.safetensors", "onnx/encoder.onnx"}
    assert (made.manifest.scorer, made.manifest.parity, made.parity) == (None, None, {})
    assert made.manifest.encoder is not None
    assert made.manifest.encoder.dim == DIM
    said_source = made.manifest.sources.encoder
    assert said_source is not None
    assert said_source.name == "source.onnx"
    assert said_source.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert beside(output) == ["engine"]


def test_nothing_stays_of_an_export_that_fails(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "manifest_bytes", fail)
    with pytest.raises(RuntimeError, match="a late failure"):
        export_engine(ExportSettings(output, encoder=source))
    assert beside(output) == []
    with pytest.raises(RuntimeError, match="a late failure"):
        export_engine(ExportSettings(output / "deep" / "engine", encoder=source))
    assert beside(output) == []  # folders made for it are gone, too


def test_an_older_engine_survives_a_failure(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_engine(ExportSettings(output, encoder=source))
    before = content(output)
    again = ExportSettings(output, encoder=source, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(job, "manifest_bytes", fail)
        with pytest.raises(RuntimeError, match="a late failure"):
            export_engine(again)
    assert content(output) == before

    def refuse(*_paths: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(_exchange, "rename_both", refuse)
        with pytest.raises(OutputError, match=r"cannot write .*engine: Input/output error"):
            export_engine(again)
    assert content(output) == before
    assert beside(output) == ["engine"]


def test_overwriting(source: Path, output: Path) -> None:
    settings = ExportSettings(output, encoder=source)
    export_engine(settings)
    with pytest.raises(OutputError, match="exists; pass --overwrite or another name"):
        export_engine(settings)
    (output / "onnx" / "left.over").write_bytes(b"")
    export_engine(ExportSettings(output, encoder=source, overwrite=True))
    check_engine(output)  # all of the old folder is gone
    assert beside(output) == ["engine"]


def test_only_engines_are_overwritten(source: Path, output: Path) -> None:
    settings = ExportSettings(output, encoder=source, overwrite=True)
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="no engine folder, so it is not overwritten"):
        export_engine(settings)
    assert content(output) == {"thesis.tex": b"years of work"}
    (output / "thesis.tex").rename(output.with_name("thesis.tex"))
    output.rmdir()
    output.write_bytes(b"a file")
    with pytest.raises(OutputError, match="no engine folder"):
        export_engine(settings)
    assert output.read_bytes() == b"a file"


def test_a_symlink_is_not_replaced(source: Path, output: Path) -> None:
    real = output.with_name("real")
    export_engine(ExportSettings(real, encoder=source))
    output.symlink_to(real)
    with pytest.raises(OutputError, match="is a symlink"):
        export_engine(ExportSettings(output, encoder=source, overwrite=True))
    assert output.is_symlink()
    check_engine(real)


def test_a_folder_that_comes_to_be_there_meanwhile(output: Path) -> None:
    def lose() -> None:
        with staged(output, overwrite=False) as stage:
            (stage / "ours").write_bytes(b"")
            output.mkdir()
            (output / "theirs").write_bytes(b"")

    with pytest.raises(OutputError, match="cannot write"):
        lose()
    assert content(output) == {"theirs": b""}
    assert beside(output) == ["engine"]


def test_a_place_that_cannot_be_written(source: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        export_engine(ExportSettings(source / "engine", encoder=source))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_nothing_of_the_build_machine_is_in_an_engine(
    engine_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    precision: str,
) -> None:
    folder = engine_folder("qwen2_vl", "prefix_first", precision)
    places = [Path(__file__).parents[2], tmp_path_factory.getbasetemp(), Path(sys.prefix)]
    places += [Path.home(), Path(sysconfig.get_paths()["purelib"])]
    needles = {str(place).encode() for place in places if len(str(place)) > 4}
    assert len(needles) >= 3
    for name, raw in content(folder).items():
        for needle in (*needles, b"site-packages", b".py"):
            assert needle not in raw, f"{name} holds {needle!r}"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_every_file_is_listed_and_weights_lie_beside_their_graphs(
    engine_folder: Callable[..., Path], precision: str
) -> None:
    folder = engine_folder("qwen2_vl", "prefix_first", precision)
    manifest = check_engine(folder)
    assert manifest.precision == precision
    assert set(manifest.files) | {"manifest.json"} == set(content(folder))
    for name in ("vision", "decoder"):
        assert graph_facts(folder / f"onnx/{name}.onnx").locations == {f"{name}.onnx.data"}
        assert manifest.files[f"onnx/{name}.onnx"].size < 1 << 20


def test_smaller_types_make_smaller_files(engine_folder: Callable[..., Path]) -> None:
    size = {
        precision: read_manifest(engine_folder("qwen2_vl", "prefix_first", precision)).files[
            "onnx/decoder.onnx.data"
        ].size
        for precision in ("fp32", "fp16", "bf16", "int8")
    }  # fmt: skip
    assert size["fp16"] < 0.55 * size["fp32"]
    assert size["bf16"] < 0.55 * size["fp32"]
    assert size["int8"] < 0.40 * size["fp32"]  # scales, norms and biases stay float


# Log-odds of these models are 1.7 wide (64 channels of size 1, weights of 0.15 * sqrt(2)). Of that
# a hundred roundings in a row cost sqrt(100 / 3) * 2^-25 in fp32 (ten times as much, for its sums
# of up to 3,600 products), 2^-12 in fp16, 2^-9 in bf16; 24 products of int8, 1% each, cost 5%.
ROUNDED = {"fp32": 3e-6, "fp16": 2.4e-3, "bf16": 1.9e-2, "int8": 8e-2}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_what_parity_says(
    checkpoint: Callable[[str], Path], engine_folder: Callable[..., Path], precision: str
) -> None:
    folder = engine_folder("qwen2_vl", "prefix_first", precision)
    said = json.loads((folder / "parity.json").read_text())["scorer"]
    assert said["pairs"] == 3
    assert said["reference"] == "PyTorch float32, whole two-image prompts"
    assert (" float16 " in said["measured_on"]) == (precision == "fp16")
    assert 0 < said["max_log_odds"] < 10 * ROUNDED[precision]  # the largest of three, any weights
    assert 0 < said["max_abs_mu"] <= said["max_abs_logit"] / 2  # mu is never steeper than 1/4
    golden = load_file(folder / "golden.safetensors")
    found = golden["log_odds"].reshape(-1)
    wanted = reference_log_odds(checkpoint("qwen2_vl"), golden)
    apart = found.argsort().argsort() - wanted.argsort().argsort()
    assert said["spearman"] == pytest.approx(1 - np.square(apart).sum() / 4)  # of three ranks
    assert said["same_first"] == (found.argmin() == wanted.argmin())


def reference_log_odds(source: Path, golden: dict[str, Any]) -> Any:
    """What PyTorch says of an engine's golden pairs."""
    loaded = load_checkpoint(source)
    grid, size = loaded.grid(None)
    images = np.concatenate([golden["query"], golden["candidates"]])
    query, *candidates = resized(images, Preprocessing(*size, "bicubic"))
    tokens = prompt_tokens(loaded, default_template(), "prefix_first")
    answers = answer_ids(loaded.tokenizer)
    logits = ask(loaded, tokens, grid, answers, query, candidates).logits.astype(np.float64)
    return logits[:, 0] - logits[:, 1]


def test_what_the_manifest_says_of_an_mllm(
    checkpoint: Callable[[str], Path], engine_folder: Callable[..., Path]
) -> None:
    source = checkpoint("qwen2_vl")
    manifest = read_manifest(engine_folder())
    assert manifest.murank_version == __version__
    said, part = manifest.sources.mllm, manifest.scorer
    assert said is not None
    assert part is not None
    assert (said.name, said.model_type) == ("qwen2_vl", "qwen2_vl")
    lines = [
        f"{name} {hashlib.sha256((source / name).read_bytes()).hexdigest()}\n"
        for name in (
            "config.json", "chat_template.jinja", "chat_template.json", "merges.txt",
            "tokenizer.json", "tokenizer_config.json", "vocab.json", "model.safetensors",
        )
        if (source / name).exists()
    ]  # fmt: skip
    assert said.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    config = load_checkpoint(source).model.config.text_config
    shapes = part.shapes
    assert shapes.layers == config.num_hidden_layers
    assert shapes.kv_heads == config.num_key_value_heads
    assert shapes.head_dim == config.hidden_size // config.num_attention_heads
    assert (shapes.hidden, shapes.levels, shapes.vision_tokens) == (config.hidden_size, 1, 50)
    assert (part.layout, part.tau, part.max_pairs) == ("prefix_first", 1.0, 32)
    assert (part.preprocessing.height, part.preprocessing.width) == (280, 140)


def test_answers_that_are_no_numbers() -> None:
    good = np.zeros((3, 2), np.float32)
    with pytest.raises(ParityError, match="in fp16 answers become NaN or infinite; export with"):
        scorer_parity(good, np.full_like(good, np.nan), 1.0, "fp16")


def test_answers_that_moved() -> None:
    """Both answers alike moved is nothing; a sure model is measured by its log-odds, not by mu."""
    sure = np.array([[30, 0], [40, 0], [35, 0]], np.float32)
    assert scorer_parity(sure, sure + 1, 1.0, "fp32")["spearman"] == pytest.approx(1)
    moved = sure + np.array([[0, 0], [1, 0], [0, 0]], np.float32)
    with pytest.raises(ParityError, match=r"differ from PyTorch's by 2\.5e-02; please report"):
        scorer_parity(sure, moved, 1.0, "fp32")
    found = scorer_parity(sure, moved, 1.0, "int8")
    assert (found["max_abs_logit"], found["max_abs_mu"]) == (1.0, pytest.approx(0, abs=1e-12))
    with pytest.raises(ParityError, match="export with another --dtype"):
        scorer_parity(np.zeros_like(sure), sure, 1.0, "int8")


def said(**changes: Any) -> Reference:
    usual = Reference(
        np.zeros((1, 2), np.float32), largest_activation=1.0, answer_share=0.9, likeliest=0
    )
    return replace(usual, **changes)


def test_a_model_that_would_say_something_else(checkpoint: Callable[[str], Path]) -> None:
    tokenizer = load_checkpoint(checkpoint("qwen2_vl")).tokenizer
    question: Any = SimpleNamespace(
        template=default_template(), checkpoint=SimpleNamespace(tokenizer=tokenizer)
    )
    other = tokenizer("Query").input_ids[0]
    assert list(_answer_notes(question, said(likeliest=other))) == []
    (note,) = _answer_notes(question, said(answer_share=0.012, likeliest=other))
    assert "1.20%" in note
    assert tokenizer.decode([other]) in note
    question.template = replace(default_template(), response_format="True or False?")
    (note,) = _answer_notes(question, said())
    assert '"Yes"' in note
    words = AnswerWords("True", "False")
    question.template = replace(question.template, answers=words)
    assert list(_answer_notes(question, said())) == []


@pytest.mark.parametrize("precision", get_args(Precision))
def test_float16_that_would_overflow(precision: Precision) -> None:
    """Whatever the weights are: activations of the TensorRT precisions are float16, too."""
    settings = ExportSettings(Path("e"), precision=precision)
    large, small = (said(largest_activation=value) for value in (7e4, 5e4))
    _check_float16(settings, small)
    if precision in ("fp32", "bf16", "w8", "int8", "w8a16"):
        _check_float16(settings, large)
        return
    with pytest.raises(InputError, match=r"reach 70000, more than float16 holds: .*--dtype bf16"):
        _check_float16(settings, large)


@pytest.mark.parametrize(
    "change", [{"precision": "int8"}, {"layout": "prefix_first"}, {"tau": 2.0}, {"max_pairs": 4}]
)
def test_what_is_about_the_mllm_needs_one(
    source: Path, output: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=f"{next(iter(change))} is about the MLLM"):
        export_engine(ExportSettings(output, encoder=source, **change))
    assert beside(output) == []


def test_who_runs_the_engine_may_read_it_and_what_a_killed_export_left_is_removed(
    source: Path, output: Path
) -> None:
    left = output.parent / f".murank-0123456789abcdef-{output.name}"
    (left / "onnx").mkdir(parents=True)
    export_engine(ExportSettings(output, encoder=source))
    assert not left.exists()
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in output.rglob("*")}
    assert modes == {True: 0o755, False: 0o644}
    assert stat.S_IMODE(output.stat().st_mode) == 0o755
