"""A training that was stopped goes on where it was cut off, to the bit."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from made_pairs import MadePairs
from safetensors.torch import load_file
from training_parts import latest, log
from training_parts import made as made
from training_parts import whole as whole

from murank_export.adapt.train import train_adapter
from murank_export.adapt.train_settings import TrainSettings


class KilledError(Exception):
    """Stands for a process that ends between two checkpoints."""


def killed_at(step: int) -> Callable[[str, int, int], None]:
    def progress(_stage: str, done: int, _total: int) -> None:
        if done == step:
            raise KilledError

    return progress


def assert_same_training(one: TrainSettings, other: TrainSettings) -> None:
    """The same to the bit: weights, state of the optimiser, adapter, log, result."""
    found, wanted = latest(one), latest(other)
    assert found["weights"].keys() == wanted["weights"].keys()
    for name, value in found["weights"].items():
        assert torch.equal(value, wanted["weights"][name])
    for key, state in found["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, wanted["optimizer"]["state"][key][name])
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        files = [settings.output / "adapter" / name for settings in (one, other)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert log(one) == log(other)
    results = [
        json.loads((settings.output / "training.json").read_text())["result"]
        for settings in (one, other)
    ]
    for result in results:
        assert result.pop("seconds") > 0
    assert results[0] == results[1]


@pytest.mark.parametrize("dies", [1, 3, 5, 6])
def test_a_killed_training_goes_on_to_the_bit(
    made: MadePairs, whole: TrainSettings, dies: int
) -> None:
    """Checkpoints are behind steps 2, 4 and 6; what was done after the last is done again."""
    cut = made.settings
    with pytest.raises(KilledError):
        train_adapter(cut, progress=killed_at(dies))
    with (cut.output / "log.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')  # the process died as it wrote
    (cut.output / "checkpoint").mkdir(exist_ok=True)
    (cut.output / "checkpoint" / ".murank-0123456789abcdef-latest.pt").write_bytes(b"half")
    told: list[str] = []
    train_adapter(cut, told.append)
    at = (dies - 1) // 2 * 2
    assert (f"going on after step {at} of 6" in told) == (at > 0)
    assert_same_training(cut, whole)
    assert not (cut.output / "checkpoint" / ".murank-0123456789abcdef-latest.pt").exists()


def test_a_training_killed_behind_its_last_step_only_finishes(made: MadePairs) -> None:
    trained = train_adapter(made.settings)
    record = json.loads((made.settings.output / "training.json").read_text())
    text = json.dumps({**record, "result": None})
    (made.settings.output / "training.json").write_text(text)
    steps: list[int] = []
    again = train_adapter(made.settings, progress=lambda _stage, done, _total: steps.append(done))
    assert (again, steps) == (trained, [])


@pytest.mark.parametrize("overwrite", [False, True])
def test_ctrl_c_saves_between_two_steps(
    made: MadePairs, whole: TrainSettings, overwrite: bool
) -> None:
    """Behind step 3, which is no multiple of save_every; --overwrite does not begin again."""
    cut = made.but(overwrite=overwrite)
    handler = signal.getsignal(signal.SIGINT)

    def press(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGINT)

    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train_adapter(cut, told.append, press)
    assert signal.getsignal(signal.SIGINT) is handler
    assert told[-1] == (
        f"stopped after step 3 of 6, all is saved in {cut.output}; the same command goes on from "
        "there"
    )
    assert latest(cut)["step"] == 3
    train_adapter(cut)
    assert_same_training(cut, whole)


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """What a terminal gives; a job in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_ctrl_c")
def test_a_second_ctrl_c_does_not_wait(made: MadePairs) -> None:
    def press(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_adapter(made.settings, progress=press)
    assert latest(made.settings)["step"] == 2


def test_it_works_beside_the_main_thread(made: MadePairs) -> None:
    """Where no signal can be caught."""
    found: list[Any] = []
    settings = made.but(steps=1)
    thread = threading.Thread(target=lambda: found.append(train_adapter(settings)))
    thread.start()
    thread.join()
    assert found[0].steps == 1


def test_going_on_from_an_adapter(made: MadePairs) -> None:
    first = train_adapter(made.but(rank=4, alpha=8.0, targets=("q_proj", "fc1")))
    settings = made.but(output=made.root / "second", init_adapter=first.adapter, lr=1e-9, min_lr=0)
    second = train_adapter(settings)
    assert second.before.loss == pytest.approx(first.best.loss, abs=1e-5)
    files = [one.adapter / "adapter_model.safetensors" for one in (first, second)]
    old, new = map(load_file, files)
    assert old.keys() == new.keys()
    for name, value in old.items():
        torch.testing.assert_close(new[name], value, atol=1e-7, rtol=0)
    config = json.loads((second.adapter / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["target_modules"] == ["fc1", "q_proj"]
