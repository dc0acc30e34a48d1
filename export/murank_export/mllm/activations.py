"""What the linear layers of a model are given when it is asked about people."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from murank.images import Preprocessing
from murank_export.graphs.geometry import Grid
from murank_export.mllm.checkpoint import Checkpoint
from murank_export.mllm.reference import prompt_inputs
from murank_export.mllm.tokens import PromptTokens
from murank_export.world.drawn_pairs import drawn_pairs

MOST_ROWS = 2048  # of a layer
_MOST_PAIRS = 64
_SEED = 20250607


def collect_activations(
    checkpoint: Checkpoint, tokens: PromptTokens, grid: Grid, how: Preprocessing
) -> dict[nn.Module, Tensor]:
    """Ask about drawn pairs, and keep what goes into the linear layers of decoder and tower.

    The static prefix is left out: an engine has it baked and never computes it.

    Returns
    -------
    dict
        [n,in] bfloat16 of each layer, n at most `MOST_ROWS`, in the order of the pairs. Layers that
        are given the same share one tensor.
    """
    static = len(tokens.static)
    pairs = min(_MOST_PAIRS, -(-MOST_ROWS // (len(tokens.full(grid.num_tokens)) - static)))
    samples = _Samples(MOST_ROWS // pairs)
    model = checkpoint.model.model
    with (
        torch.inference_mode(),
        samples.watching(model.visual, 0),
        samples.watching(model.language_model, static),
    ):
        for pair in drawn_pairs(pairs, how):  # without the answer head: it is not rounded
            model(**prompt_inputs(checkpoint, tokens, grid, np.stack(pair)), use_cache=False)
    return samples.joined()


class _Samples:
    """Random rows of what linear layers are given, a few at each call."""

    def __init__(self, rows_per_call: int) -> None:
        self._rows_per_call = rows_per_call
        self._random = torch.Generator().manual_seed(_SEED)
        self._kept: dict[nn.Module, list[Tensor]] = {}  # one list for all that are given the same
        self._last: tuple[Tensor | None, list[Tensor]] = (None, [])

    @contextlib.contextmanager
    def watching(self, module: nn.Module, skipped: int) -> Iterator[None]:
        """Watch the linear layers of a module, but for the first `skipped` tokens."""

        def see(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen, rows = self._last
            if inputs[0] is not seen:
                rows = self._kept.get(layer, [])
                rows.append(self._sample(inputs[0].flatten(0, -2)[skipped:]))
                self._last = (inputs[0], rows)
            self._kept[layer] = rows

        linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        handles = [layer.register_forward_pre_hook(see) for layer in linear]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _sample(self, x: Tensor) -> Tensor:
        order = torch.randperm(len(x), generator=self._random)[: self._rows_per_call]
        return x[order].bfloat16()  # as wide in range as float32

    def joined(self) -> dict[nn.Module, Tensor]:
        """Return the rows of each layer."""
        for rows in self._kept.values():
            rows[:] = [torch.cat(rows)]  # one by one: what was joined is freed
        return {layer: rows[0] for layer, rows in self._kept.items()}
