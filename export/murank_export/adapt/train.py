"""Training of an adapter: pairs and an MLLM in, a PEFT folder out; a killed run goes on."""

import contextlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from murank import InputError, __version__
from murank.files.plain import check_utf8
from murank.prompt import PromptTemplate, default_template, load_template
from murank.rerank.methods import Progress
from murank_export.adapt.checkpoints import RunFolder
from murank_export.adapt.examples import TRAIN, VAL, Splits, load_splits
from murank_export.adapt.lora import ALPHA, RANK, add_adapter
from murank_export.adapt.question import (
    Question,
    cast_parameters,
    make_question,
    recompute_activations,
)
from murank_export.adapt.train_settings import TrainSettings
from murank_export.adapt.training import Trained, Training
from murank_export.adapt.validation_choice import chosen, validation_size
from murank_export.engine.steps import NOTE, Report
from murank_export.mllm.adapter import Adapter, check_prompt, read_adapter
from murank_export.mllm.bases import check_base
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.sources.hashing import checkpoint_sha256, file_sha256

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train_adapter(
    settings: TrainSettings,
    report: Report = lambda _text: None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Trained:
    """Train a LoRA on labelled pairs, or go on with a training that was cut off.

    On one process of one kind of CPU the outcome is the same to the bit, cut off or not. Several
    processes (accelerate launch) share each step.

    Parameters
    ----------
    settings
        What to train on, and how.
    report
        Called with a line for each stage and each validation.
    progress
        Called with (loss and speed, steps done, steps) after each step, and with ("validation
        pairs", done, all) meanwhile.

    Raises
    ------
    InputError
        Model, pairs, images or adapter cannot be used, or an unfinished training in the output
        folder is another one.
    OutputError
        The output folder is in use, or cannot be written.
    KeyboardInterrupt
        After Ctrl-C; from the first step on, once a checkpoint is saved.
    """
    from accelerate import Accelerator  # type: ignore[import-untyped]

    check_utf8(settings.mllm, settings.init_adapter, settings.output)
    template = default_template() if settings.prompt is None else load_template(settings.prompt)
    init = _init_adapter(settings, template)
    splits = load_splits(settings.pairs, settings.image_root)
    machine = Accelerator()
    size = validation_size(settings, len(splits.train), len(splits.val), machine.num_processes)
    known, splits = len(splits.val), replace(splits, val=chosen(splits.val, size, settings.seed))
    tell = report if machine.is_main_process else _ignore
    folder = RunFolder(settings.output)
    with _own_random_state(machine.device, settings.seed):
        if splits.junk:
            tell(f"{NOTE}{splits.junk} pairs left out, for an image is junk: its name says pid -1")
        # A start may be another model's: what is trained here goes on from there.
        note = init and check_base(init.path, init.base, settings.mllm, force=True)
        if note:
            tell(f"{NOTE}{note}")
        tell("load checkpoint ...")
        question = _question(settings, template, init, machine, tell)
        tell("hash model and pairs ...")
        deciding = _deciding(settings, template, init, machine)
        saved = folder.look(deciding, overwrite=settings.overwrite)
        tell(f"each validation asks about {size:,} of {known:,} pairs (--val-pairs N, or all)")
        training = Training(settings, splits, question, template, folder, machine)
        machine.wait_for_everyone()  # all have looked before one writes
        try:
            training.begin(_record(settings, deciding, splits), saved, tell, progress)
            return training.run()
        finally:
            folder.release()  # an error's traceback may keep the folder alive


def _init_adapter(settings: TrainSettings, template: PromptTemplate) -> Adapter | None:
    if settings.init_adapter is None:
        return None
    if not settings.init_adapter.exists():
        raise InputError(f"{settings.init_adapter}: no such file or folder")
    adapter = read_adapter(settings.init_adapter)
    check_prompt(adapter, settings.layout, template.sha256, force=False)
    return adapter


def _question(
    settings: TrainSettings,
    template: PromptTemplate,
    init: Adapter | None,
    machine: Any,
    report: Report,
) -> Question:
    """Load the model, put the adapter in, move both to the device."""
    checkpoint = load_checkpoint(settings.mllm)
    question = make_question(
        checkpoint, template, settings.layout, settings.image_size, machine.device
    )
    how = replace(question.how, bits=settings.bits, limits=settings.decode_limits)
    question = replace(question, how=how)
    checkpoint.model.requires_grad_(False)
    cast_parameters(checkpoint.model, _DTYPES[_dtype(settings, machine)])
    adapted = add_adapter(checkpoint, settings, init, report)
    on_gpu = machine.device.type == "cuda"
    if on_gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing:
        recompute_activations(checkpoint.model)
    adapted.to(machine.device)
    return question.with_adapter(adapted)


def _dtype(settings: TrainSettings, machine: Any) -> str:
    if settings.dtype != "auto":
        return settings.dtype
    return "bf16" if machine.device.type == "cuda" else "fp32"


def _deciding(
    settings: TrainSettings, template: PromptTemplate, init: Adapter | None, machine: Any
) -> dict[str, Any]:
    """All that decides the outcome, by which a training that was cut off is known again."""
    new = init is None
    return {
        **settings.deciding(),
        "rank": settings.rank or (RANK if new else None),
        "alpha": settings.alpha or (ALPHA if new else None),
        "targets": None if settings.targets is None else sorted(settings.targets),
        "dtype": _dtype(settings, machine),
        "processes": machine.num_processes,
        "model_sha256": checkpoint_sha256(settings.mllm),
        "train_pairs_sha256": file_sha256(settings.pairs / TRAIN),
        "val_pairs_sha256": file_sha256(settings.pairs / VAL),
        "template_sha256": template.sha256,
        "init_adapter_sha256": None if init is None else init.sha256,
    }


def _record(settings: TrainSettings, deciding: dict[str, Any], splits: Splits) -> dict[str, Any]:
    """What training.json holds, but for the result."""
    return {
        "schema_version": 1,
        "deciding": deciding,
        "names": {  # the last part only: an adapter tells nothing of the machine's folders
            "model": settings.mllm.absolute().name,
            "pairs": settings.pairs.absolute().name,
        },
        "counts": {"train_pairs": len(splits.train), "val_pairs": len(splits.val)},
        "versions": {
            "murank": __version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


@contextlib.contextmanager
def _own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from `seed` inside, and leave the caller's random numbers as they were."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _ignore(_text: str) -> None:
    pass
