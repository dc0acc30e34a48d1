"""Adaptation of an MLLM, once and off-line: hard pairs are mined, then LoRA is trained on them.

Nothing is loaded before it is asked for, torch least of all.

Imports sources, graphs, mllm, engine.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from murank_export.adapt.mining import mine_pairs
    from murank_export.adapt.mining_settings import MiningSettings
    from murank_export.adapt.train import TrainSettings, train_adapter

__all__ = ["MiningSettings", "TrainSettings", "mine_pairs", "train_adapter"]

_HOMES = {
    "MiningSettings": "mining_settings", "mine_pairs": "mining",
    "TrainSettings": "train", "train_adapter": "train",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
