"""Where the channels of an MLLM can be scaled without a change of what it says.

A channel is divided by a factor where it is made (the weight of a norm, output rows of a linear
layer), and its weights in the layers that read it are multiplied by the factor. Only what is linear
may stand between: `down` reads silu(gate) * up, and so the rows of `up`; `out` reads averages of
values. Nothing can be done where an activation function makes the channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Channels:
    """Channels, what makes them and who reads them."""

    made_by: tuple[Tensor, ...]  # weights and biases, channels first
    read_by: tuple[nn.Linear, ...]  # that are given the same
    channel: Tensor  # [in]: the channel that each input of theirs is of

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.made_by[0])

    def largest(self, values: Tensor) -> Tensor:
        """Magnitudes [in] -> of each channel the largest, [count]."""
        return torch.zeros(self.count).scatter_reduce(0, self.channel, values.float(), "amax")

    def divide(self, factor: Tensor) -> None:
        """Divide the channels by factors [count], in place; their readers make up for it."""
        for part in self.made_by:
            part.div_(factor.reshape(-1, *[1] * (part.ndim - 1)))
        for layer in self.read_by:
            layer.weight.mul_(factor[self.channel])


def all_channels(model: Any) -> Iterator[Channels]:
    """Yield those of the vision tower and the decoder of a loaded checkpoint."""
    for block in model.model.visual.blocks:
        yield from _of_block(block)
    for merger in (model.model.visual.merger, *_deepstack(model.model.visual)):
        if hasattr(merger, "mlp"):  # Qwen2-VL, Qwen2.5-VL
            yield _behind_norm(merger.ln_q, merger.mlp[0])
        else:
            yield _behind_norm(merger.norm, merger.linear_fc1)
    config = model.config.text_config
    group = int(config.num_attention_heads) // int(config.num_key_value_heads)
    for layer in model.model.language_model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        yield _behind_norm(layer.input_layernorm, *projections)
        head = attention.v_proj.out_features // int(config.num_key_value_heads)
        yield _behind_rows(attention.v_proj, attention.o_proj, _of_group(attention, group, head))
        yield _behind_norm(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
        yield _behind_rows(mlp.up_proj, mlp.down_proj)


def _of_block(block: Any) -> Iterator[Channels]:
    attention, mlp = block.attn, block.mlp
    yield _behind_norm(block.norm1, attention.qkv)
    values = slice(2 * attention.qkv.out_features // 3, None)
    yield _behind_rows(attention.qkv, attention.proj, rows=values)
    if hasattr(mlp, "gate_proj"):  # Qwen2.5-VL
        yield _behind_norm(block.norm2, mlp.gate_proj, mlp.up_proj)
        yield _behind_rows(mlp.up_proj, mlp.down_proj)
    else:
        yield _behind_norm(block.norm2, mlp.fc1 if hasattr(mlp, "fc1") else mlp.linear_fc1)


def _deepstack(visual: Any) -> Any:
    return getattr(visual, "deepstack_merger_list", [])


def _of_group(attention: Any, group: int, head: int) -> Tensor:
    """Channels of the values that `out` reads: `group` heads attend to each of theirs."""
    read = torch.arange(attention.o_proj.in_features)
    return read // head // group * head + read % head


def _behind_norm(norm: Any, *read_by: nn.Linear) -> Channels:
    """What merges patches reads several normed vectors, one behind the other."""
    bias = getattr(norm, "bias", None)
    made_by = (norm.weight.data,) if bias is None else (norm.weight.data, bias.data)
    channel = torch.arange(read_by[0].in_features) % len(norm.weight)
    return Channels(made_by, read_by, channel)


def _behind_rows(
    layer: nn.Linear,
    read_by: nn.Linear,
    channel: Tensor | None = None,
    rows: slice = slice(None),
) -> Channels:
    parts = (layer.weight,) if layer.bias is None else (layer.weight, layer.bias)
    channel = torch.arange(read_by.in_features) if channel is None else channel
    return Channels(tuple(part.data[rows] for part in parts), (read_by,), channel)
