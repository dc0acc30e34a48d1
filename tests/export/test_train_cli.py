"""`murank adapt train` as its users meet it."""

import importlib.util
import json
import signal
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from made_pairs import MadePairs

import murank_export
from murank.cli import main
from murank_export.adapt import train_cli
from murank_export.adapt import validation as _validation
from murank_export.adapt.train_settings import TrainSettings
from murank_export.adapt.training import Training

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def made(checkpoint: Callable[[str], Path], tmp_path: Path) -> MadePairs:
    return MadePairs(tmp_path, checkpoint("qwen2_vl"))


def command(made: MadePairs, *more: object) -> list[str]:
    words = [
        "adapt", "train", "--mllm", made.settings.mllm, "--pairs", made.pairs, "--image-root",
        made.images, "-o", made.settings.output, "--prompt", made.root / "prompt.json",
        "--image-size", "56x28", "--steps", "2", *more,
    ]  # fmt: skip
    return [str(word) for word in words]


def test_a_summary(made: MadePairs, capsys: Capture) -> None:
    assert main(command(made, "--layout", "prefix_first")) == 0
    out, err = capsys.readouterr()
    first, before, best, last, following = out.splitlines()
    adapter = made.settings.output / "adapter"
    assert first.startswith(f"{adapter}: best of 2 steps, ")
    assert [line.split()[:3] for line in (before, best, last)] == [
        ["before", "step", "0"], ["best", "step", "2"], ["last", "step", "2"],
    ]  # fmt: skip
    assert following == (
        f"next: murank export --mllm {made.settings.mllm} --adapter {adapter} --layout "
        f"prefix_first --prompt {made.root / 'prompt.json'} --image-size 56x28 -o ENGINE"
    )
    assert err.splitlines()[:2] == ["load checkpoint ...", "hash model and pairs ..."]


def test_json_and_nothing_else(made: MadePairs, capsys: Capture) -> None:
    assert main(command(made, "--json", "--quiet")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    said = json.loads(out)
    result = json.loads((made.settings.output / "training.json").read_text())["result"]
    assert said == {"adapter": str(made.settings.output / "adapter"), **result, "notes": []}


def test_every_option_arrives(made: MadePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of its own for each, so that none can stand in for another."""
    found: list[TrainSettings] = []

    def note(settings: TrainSettings, *_rest: Any) -> None:
        found.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("murank_export.adapt.train.train_adapter", note)
    words = [
        "--layout", "prefix_first", "--init-adapter", "a", "--adapter-rank", "3",
        "--adapter-alpha", "5", "--adapter-dropout", "0.5", "--adapter-targets", "q_proj, fc1",
        "--lr", "0.1", "--min-lr", "0.01", "--warmup", "7", "--weight-decay", "0.2",
        "--batch-size", "12", "--accumulate", "9", "--clip", "0.3", "--pack", "4",
        "--jitter", "0.6", "--seed", "11",
        "--eval-every", "13", "--val-pairs", "14", "--save-every", "15", "--dtype", "bf16",
        "--no-gradient-checkpointing", "--overwrite",
    ]  # fmt: skip
    assert main(command(made, *words)) == 130
    assert found == [
        TrainSettings(
            made.settings.mllm, made.pairs, made.settings.output, made.images, "prefix_first",
            made.root / "prompt.json", (56, 28), Path("a"), 3, 5.0, ("q_proj", "fc1"), 0.5, 1, 2,
            0.1, 0.01, 7, 0.2, 12, 9, 0.3, 4, 0.6, 11, "bf16", False, 13, 14, 15, True,
        )
    ]  # fmt: skip
    plain = ["adapt", "train", "--mllm", "m", "--pairs", "p", "-o", "o"]
    assert main(plain) == 130
    assert found[1] == TrainSettings(Path("m"), Path("p"), Path("o"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", "0"), "--steps"),
        (("--adapter-rank", "0"), "--adapter-rank"),
        (("--epochs", "2"), "not allowed with argument"),
        (("--image-size", "56"), "must be HEIGHTxWIDTH"),
        (("--layout", "mine"), "--layout"),
        (("--dtype", "fp8"), "--dtype"),
        (("--lr", "x"), "--lr"),
        (("--lr", "0"), "lr must be above 0"),
        (("--adapter-targets", "q_proj,"), "targets must name at least one module"),
        (("--adapter-targets", "nowhere"), "no linear layer of this model is named 'nowhere'"),
        (("--image-size", "57x28"), "needs multiples of 28"),
        (("--pairs", "nowhere"), "train.json"),
    ],
)
def test_command_lines_that_cannot_be_followed(
    made: MadePairs, capsys: Capture, words: tuple[str, ...], message: str
) -> None:
    assert main(command(made, "--quiet", *words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("murank: error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not made.settings.output.exists()


def test_ctrl_c(made: MadePairs, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    note = Training._note

    def press(self: Training, step: Any) -> None:
        note(self, step)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_note", press)
        assert main(command(made)) == 130
    _, err = capsys.readouterr()
    told = f"stopped after step 1 of 2, all is saved in {made.settings.output}; the same command"
    assert told in err
    assert main(command(made)) == 0
    assert "going on after step 1 of 2" in capsys.readouterr().err


def test_ctrl_c_before_the_first_step(made: MadePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to save: it ends at once, and the same command begins anew."""
    asked: list[int] = []

    def press(*_given: Any) -> Any:
        asked.append(1)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(_validation, "_ask", press)
            assert main(command(made, "--val-pairs", "all")) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert asked == [1]
    assert main(command(made, "--val-pairs", "all")) == 0


def test_packages_that_are_missing(
    made: MadePairs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("peft", "accelerate") else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert main(command(made)) == 3
    message = "training needs peft, accelerate: on the build machine, pip install 'murank[export]'"
    assert message in capsys.readouterr().err


def test_help_loads_no_torch(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for name in ("torch", "transformers", "peft", "accelerate"):
        monkeypatch.setitem(sys.modules, name, None)  # an import would raise
    for name in [name for name in sys.modules if name.startswith("murank_export.adapt")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(murank_export, "adapt")  # what is loaded anew goes with this test
    assert main(["adapt", "train", "--help"]) == 0
    assert "--adapter-rank" in capsys.readouterr().out
    assert train_cli.__doc__ is not None
