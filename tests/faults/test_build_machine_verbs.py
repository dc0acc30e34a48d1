"""A full disk, and a kill, at each step of each verb of the build machine that writes."""

import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import plain_encoder
import pytest
import torch
from faults.covered import written
from faults.everywhere import Command, check_every_step
from faults.shim import KILLED, Shim, in_child
from image_job import write_crop
from made_features import make_features
from made_pairs import MadePairs
from safetensors.numpy import load_file

from murank import InputError, save_features
from murank.cli import main
from murank.folder.manifest import engine_sha256, read_manifest
from murank_export.adapt import train, training
from murank_export.adapt.checkpoints import RunFolder, Saved
from murank_export.adapt.examples import load_splits
from murank_export.adapt.loop import TrainingStep
from murank_export.adapt.train_settings import TrainSettings
from murank_export.adapt.validation import Evaluation
from murank_export.engine import export_engine, export_scorer

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
MLLM = ENGINE.parent / "base"


def verb(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the shipped engine in the place of what takes half a minute to make."""
    manifest, golden = read_manifest(ENGINE), load_file(ENGINE / "golden.safetensors")
    part = manifest.exported_scorer

    def copy(stage: Path, *names: str) -> None:
        for file in (file for name in names for file in ENGINE.glob(name)):
            to = stage / file.relative_to(ENGINE)
            with to.open("wb") as written:
                written.write(file.read_bytes())

    def encoder(_settings: object, stage: Path, _steps: object) -> Any:
        copy(stage, "onnx/encoder.onnx")
        return manifest.encoder, {}

    def scored(_settings: object, _adapter: object, _template: object, stage: Path, _: Any) -> Any:
        copy(stage, "onnx/[vd]*", "prompt.safetensors")
        return SimpleNamespace(part=part, golden=golden, parity={"spearman": None})

    monkeypatch.setattr(export_engine, "_encoder", encoder)
    monkeypatch.setattr(export_scorer, "export_scorer", scored)
    monkeypatch.setattr("murank_export.engine.export_cli._summary", lambda made: str(made.folder))


@written("export --output")
@pytest.mark.parametrize("again", [False, True])
def test_export(root: Path, tmp_path: Path, exported: None, again: bool) -> None:
    del exported
    output = root / "engines" / "engine"
    options = ["export", "-o", output, "--mllm", MLLM, "--encoder", ENGINE, "--quiet"]
    if again:
        assert verb(*options, "--tau", 2) == 0
        options.append("--overwrite")
    command = Command(
        root, lambda: verb(*options), lambda: verb(*options, "--overwrite"),
        seal="engines/engine/manifest.json", read=lambda: engine_sha256(output),
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")


@pytest.mark.parametrize("most", [100, 3000, 6000])
def test_a_disk_that_native_code_finds_full(tmp_path: Path, most: int) -> None:
    """What is written past Python is refused by the system itself, here from so many bytes on."""
    source = plain_encoder.save(plain_encoder.model(), tmp_path)
    before = set(tmp_path.iterdir())

    def run() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        return verb("export", "-o", tmp_path / "engine", "--encoder", source, "--quiet")

    ended = in_child(run, Shim(tmp_path))
    assert ended.code == 2, ended.err
    assert ended.err.startswith("murank: error: ")
    assert ended.err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


@written("adapt mine --output", "adapt mine --sheet")
@pytest.mark.parametrize("again", [False, True])
def test_mine(root: Path, tmp_path: Path, again: bool) -> None:
    made = make_features(num_ids=6, num_cameras=2, images_per_camera=2, num_distractors=2, dim=8)
    save_features(tmp_path / "f.npz", made)
    for path in made.paths:
        write_crop(tmp_path / str(path), np.full((16, 8, 3), len(str(path)) % 200))
    options = [
        "adapt", "mine", "--features", tmp_path / "f.npz", "-o", root / "pairs", "--random",
        "--val-ratio", 0.4, "--sheet", root / "sheet.png", "--image-root", tmp_path, "--quiet",
    ]  # fmt: skip
    if again:
        assert verb(*options, "--val-ratio", 0.5) == 0
        options.append("--overwrite")

    def read() -> object:
        splits = load_splits(root / "pairs", tmp_path)
        return splits.train, splits.val

    command = Command(
        root, lambda: verb(*options), lambda: verb(*options, "--overwrite"),
        seal="pairs/mining.json", read=read,
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")


class FakeLoop:
    """Each step adds the learning rate."""

    def __init__(
        self, settings: TrainSettings, _q: object, _p: object, steps: int, _m: Any
    ) -> None:
        self._lr, self._steps = settings.lr, steps
        self.weights = {"w": torch.zeros(3)}
        self.optimizer = SimpleNamespace(state_dict=dict)

    def run(self, done: int) -> Iterator[TrainingStep]:
        for step in range(done, self._steps):
            self.weights["w"] += self._lr
            yield TrainingStep(step + 1, 0.5, self._lr, 1.0, 8, 0.25)

    def restore(self, weights: dict[str, torch.Tensor], _optimizer: object) -> None:
        self.weights["w"].copy_(weights["w"])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training whose model is three numbers; files and what is remembered are the real ones."""
    loops: list[FakeLoop] = []

    def loop(*given: Any) -> FakeLoop:
        loops.append(FakeLoop(*given))
        return loops[-1]

    def evaluated(
        _question: object, _pairs: object, _machine: object, step: int, _progress: object
    ) -> Evaluation:
        return Evaluation(step, 1 / (step + 1), 0.5, 0.5)

    def files(_adapted: object, layout: str, *_given: object) -> dict[str, Any]:
        content = {
            "adapter_config.json": layout,
            "adapter_model.safetensors": str(loops[-1].weights),
        }
        return {
            name: lambda file, text=text: file.write(f"{layout} {text}".encode())
            for name, text in content.items()
        }

    how = SimpleNamespace(height=56, width=28)
    question = SimpleNamespace(adapted=None, how=how)
    monkeypatch.setattr(train, "_question", lambda *_given: question)
    monkeypatch.setattr(training, "Loop", loop)
    monkeypatch.setattr(training, "validate", evaluated)
    monkeypatch.setattr(training, "adapter_files", files)


@written("adapt train --output")
@pytest.mark.parametrize("again", [None, "finished", "unfinished"])
def test_train(root: Path, tmp_path: Path, trained: None, again: str | None) -> None:
    del trained
    made = MadePairs(tmp_path, MLLM)
    output = root / "deep" / "out"
    options = [
        "adapt", "train", "--mllm", MLLM, "--pairs", made.pairs, "--image-root", made.images,
        "-o", output, "--steps", 2, "--eval-every", 1, "--quiet",
    ]  # fmt: skip
    if again is not None:
        other = [*options, "--lr", 0.5, "--layout", "prefix_first"]
        assert verb(*other) == 0
        if again == "unfinished":
            record = json.loads((output / "training.json").read_text())
            (output / "training.json").write_text(json.dumps({**record, "result": None}))
        options.append("--overwrite")

    def read() -> object:
        """Configuration and weights are of one training."""
        names = ("adapter_config.json", "adapter_model.safetensors")
        texts = [(output / "adapter" / name) for name in names]
        if not all(text.exists() for text in texts):
            return "not whole, which its reader refuses"
        assert len({text.read_text().split()[0] for text in texts}) == 1
        return "of one training"

    command = Command(
        root, lambda: verb(*options), lambda: verb(*options, "--overwrite"),
        kept=r"/training\.json|/log\.jsonl|/checkpoint|/adapter/", read=read,
        between=("not whole, which its reader refuses", "of one training"),
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")


def test_a_training_goes_on_from_its_own_checkpoint(root: Path) -> None:
    """Another one that was killed as it took the folder over left the checkpoint of the first."""

    def begun(lr: float, *, saves: bool) -> int:
        deciding = {"lr": lr}
        folder = RunFolder(root)
        found = folder.look(deciding, overwrite=True)
        assert found is None
        folder.begin({"deciding": deciding, "result": None}, None)
        if saves:
            folder.save(Saved(2, 1.0, [], None, {"w": torch.full((2,), lr)}, {}))
        folder.release()
        return 0

    number, code = 0, KILLED
    while code == KILLED:
        shutil.rmtree(root, ignore_errors=True)
        begun(0.5, saves=True)
        code = in_child(lambda: begun(0.25, saves=False), Shim(root, number, kill=True)).code
        for overwrite in (False, True):
            try:
                found = RunFolder(root).look({"lr": 0.25}, overwrite=overwrite)
            except InputError:
                continue  # the first one, still whole
            assert found is None
        number += 1
    assert code == 0
    assert number > 10


def test_a_training_killed_at_its_first_write(root: Path) -> None:
    run = RunFolder(root)
    record: dict[str, Any] = {"deciding": {}, "result": None}

    def begin() -> int:
        run.begin(record, None)
        return 0

    number, code = 0, KILLED
    while code == KILLED:
        shutil.rmtree(root, ignore_errors=True)
        code = in_child(begin, Shim(root, number, kill=True)).code
        assert RunFolder(root).look({}, overwrite=False) is None
        number += 1
    assert number > 10
