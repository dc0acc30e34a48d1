"""Adapters as their makers save them: PEFT folders, and MUSE's file of trainable parameters."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

RANK, ALPHA = 4, 8
TARGETS = [
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    "fc1", "fc2",  # MLP of Qwen2-VL's vision tower
]  # fmt: skip


def add_lora(model: Any, *, rank: int = RANK, alpha: int = ALPHA, **changes: Any) -> Any:
    """Wrap a model; all that is trained is random, so that the adapter changes every answer."""
    settings = {"target_modules": TARGETS, "lora_dropout": 0.1, **changes}
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, **settings)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            noise = 0.1 * torch.randn(value.shape, generator=generator)
            if ".lora_" in name and "magnitude" not in name:
                value.copy_(noise)
            elif value.requires_grad:
                value.add_(noise)
    return adapted


def trainable(adapted: Any) -> dict[str, torch.Tensor]:
    """What MUSE saves: parameters with a gradient, by their names in the wrapped model."""
    named = adapted.named_parameters()
    return {name: value.detach().clone() for name, value in named if value.requires_grad}


def save_peft(adapted: Any, folder: Path) -> Path:
    adapted.save_pretrained(folder)
    return folder


def save_muse(adapted: Any, file: Path) -> Path:
    torch.save(trainable(adapted), file)
    return file
