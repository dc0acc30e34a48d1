"""Adapters in the making: where they go, how they start, what is written of them."""

import copy
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from murank import InputError
from murank.files.atomic import Writer
from murank_export.adapt.train_settings import TrainSettings
from murank_export.engine.steps import NOTE, Report
from murank_export.mllm.adapter import CONFIG, LAYOUT_KEY, SIZE_KEY, TEMPLATE_KEY, WEIGHTS, Adapter
from murank_export.mllm.checkpoint import Checkpoint
from murank_export.mllm.peft_folder import PeftFolder, read_peft_folder
from murank_export.sources.loading import one_line, read_json

RANK, ALPHA = 16, 32.0
_LANGUAGE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS: Mapping[str, Sequence[str]] = {
    "qwen2_vl": (*_LANGUAGE, "fc1", "fc2"),
    "qwen2_5_vl": _LANGUAGE,  # its vision MLP has gate_proj, up_proj and down_proj, too
    "qwen3_vl": (*_LANGUAGE, "mlp.linear_fc1", "mlp.linear_fc2"),  # not those of its mergers
}


def add_adapter(
    checkpoint: Checkpoint,
    settings: TrainSettings,
    init: Adapter | None,
    report: Report = lambda _text: None,
) -> Any:
    """Put a LoRA into the checkpoint's model, new or as `init` left it; return PEFT's wrapper.

    The adapter is float32 whatever the model is. A new one starts from torch's random state and
    changes no answer.

    Raises
    ------
    InputError
        A target names no linear layer, or `init` is of another kind, shape or set of targets.
    """
    from peft import LoraConfig, get_peft_model

    if init is None:
        targets = settings.targets or TARGETS[checkpoint.family]
        _check_targets(checkpoint.model, targets)
        config = LoraConfig(
            r=settings.rank or RANK,
            lora_alpha=settings.alpha or ALPHA,  # a float works as well
            target_modules=list(targets),
        )
    else:
        read = _start(checkpoint.model, init, settings)
        config = read.config
        for note in read.notes:
            report(f"{NOTE}{init.path}: {note}")
    config.lora_dropout = settings.dropout
    try:
        with warnings.catch_warnings():
            # PEFT asks transformers 5 for what that renamed.
            warnings.simplefilter("ignore", FutureWarning)
            adapted = get_peft_model(checkpoint.model, config)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"no adapter fits this model: {one_line(error)}") from error
    if init is not None:
        read.put_into(adapted)
    return adapted


def trainable(adapted: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name."""
    return {name: value for name, value in adapted.named_parameters() if value.requires_grad}


def adapter_files(
    adapted: Any, layout: str, template_sha256: str, image_size: tuple[int, int]
) -> dict[str, Writer]:
    """Return what writes a PEFT folder that says which prompt it was trained with."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    config = copy.copy(adapted.peft_config["default"])
    config.inference_mode = True
    # The last part only: an adapter tells nothing of the build machine's folders.
    config.base_model_name_or_path = Path(config.base_model_name_or_path).absolute().name
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        said = read_json(Path(folder) / CONFIG)
    said["target_modules"] = sorted(said["target_modules"])  # a set, in any order
    text = json.dumps(said, indent=2, sort_keys=True) + "\n"
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    metadata = {
        "format": "pt", LAYOUT_KEY: layout, TEMPLATE_KEY: template_sha256,
        SIZE_KEY: "{}x{}".format(*image_size),
    }  # fmt: skip
    weights = _ordered(save(tensors, metadata))
    return {
        CONFIG: lambda file: file.write(text.encode()),
        WEIGHTS: lambda file: file.write(weights),
    }


def _ordered(file: bytes) -> bytes:
    """Put the metadata of a safetensors file in order: it comes in another one each time."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    return file[:8] + text.ljust(size) + file[8 + size :]


def _check_targets(model: Any, targets: Sequence[str]) -> None:
    # The answer head is left out: it may be the embedding table as well.
    linear = [name for name, module in model.model.named_modules() if isinstance(module, nn.Linear)]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            last = sorted({name.rpartition(".")[2] for name in linear} - {"0", "2"})
            raise InputError(
                f"no linear layer of this model is named {target!r}; there are {', '.join(last)}"
            )


def _start(model: Any, init: Adapter, settings: TrainSettings) -> PeftFolder:
    if init.kind != "peft":
        raise InputError(f"{init.path} is no PEFT folder: a training goes on from one only")
    read = read_peft_folder(init.path, model)
    config = read.config
    for name, wanted, found in (
        ("rank", settings.rank, config.r),
        ("alpha", settings.alpha, config.lora_alpha),
        ("targets", settings.targets and set(settings.targets), read.targets),
    ):
        if wanted is not None and wanted != found:
            raise InputError(f"{init.path} has {name} {found}, not {wanted}: leave that out")
    config.inference_mode = False
    return read
