"""The decoder graph: one set of weights for the prefill of a query and the scoring of candidates.

A candidate's tokens attend to the prefix's K/V, which all candidates of a query share, and to one
another causally, under one softmax. Only what the answer needs is computed in the last layer: K/V
of all tokens, the rest of the last token alone.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from murank.folder.precision import Precision
from murank_export.graphs.attention import Attention, Heads, Tables, attention_of
from murank_export.graphs.layers import (
    Inputs,
    RMSNorm,
    float_dtype,
    host_dtype,
    project,
    take_linear,
    take_norm,
)


class Decoder(nn.Module):
    """Made from a loaded checkpoint, whose decoder layers it takes over (and their `inputs`).

    `portable`: see `attention_of`.

    vision         [Q,K,levels,T,H]  vision tokens of each candidate (prefill: of each query, K=1)
    text           [B,H]             embeddings of the text behind the image, of `host_dtype` both
    position_ids   [3,T+B]           M-RoPE positions, int64
    past           2 x layers of [Q,KVH,P,D], keys and values in turn
    returns        logits [Q,K,2] float32 (No, Yes), then past of [Q,KVH,P+T+B,D], extended by the
                   first candidate: of use in the prefill, where it is the only one
    """

    inverse_frequency: Tensor
    axis: Tensor
    head: Tensor

    def __init__(
        self,
        model: Any,
        answer_ids: Sequence[int],
        precision: Precision,
        inputs: Inputs | None = None,
        *,
        portable: bool = False,
    ) -> None:
        super().__init__()
        text, config = model.model.language_model, model.config.text_config
        self.dtype, self.host_dtype = float_dtype(precision), host_dtype(precision)
        self.num_heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        head_dim = getattr(config, "head_dim", None)
        self.head_dim = int(head_dim or config.hidden_size // self.num_heads)
        self.levels = 1 + len(getattr(model.config.vision_config, "deepstack_visual_indexes", []))
        heads = Heads(self.num_heads, self.kv_heads, self.head_dim)
        self.attention = attention_of(precision, heads, portable=portable)
        inverse, axis = rope_frequencies(text.rotary_emb)
        self.rope_scale = float(getattr(text.rotary_emb, "attention_scaling", 1.0))  # of YaRN
        self.register_buffer("inverse_frequency", inverse)
        self.register_buffer("axis", axis)
        rows = model.lm_head.weight.detach()[list(answer_ids)]
        self.register_buffer("head", rows.float().t().contiguous())  # [H,2]
        self.norm = RMSNorm(text.norm.weight.detach().float(), _epsilon(text.norm))
        self.layers = nn.ModuleList(_Layer(layer, precision, inputs) for layer in text.layers)

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    def forward(
        self, vision: Tensor, text: Tensor, position_ids: Tensor, past: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """See the class."""
        vision, text = vision.to(self.dtype), text.to(self.dtype)
        queries, candidates = vision.shape[0], vision.shape[1]
        behind = text.expand(queries, candidates, *text.shape)
        x = torch.cat([vision[:, :, 0], behind], 2)
        position = position_ids.to(torch.float32)[self.axis].t()  # [S,D/2]
        tables = self.attention.tables(
            position * self.inverse_frequency, self.rope_scale, past[0].shape[2], self.dtype
        )
        present: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            last = index == self.num_layers - 1
            x, *extended = cast(_Layer, layer)(
                x, past[2 * index : 2 * index + 2], self.attention, tables, last=last
            )
            present += extended
            if index + 1 < self.levels:
                x = x + torch.cat([vision[:, :, index + 1], torch.zeros_like(behind)], 2)
        answer = self.norm(x[:, :, -1].to(torch.float32))
        return (torch.matmul(answer, self.head), *present)


class _Layer(nn.Module):
    """One decoder layer: grouped-query attention over prefix and suffix, gated MLP."""

    def __init__(self, layer: Any, precision: Precision, inputs: Inputs | None) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.q, self.k, self.v, self.out = (
            take_linear(getattr(attention, name), precision, inputs)
            for name in ("q_proj", "k_proj", "v_proj", "o_proj")
        )
        self.gate, self.up, self.down = (
            take_linear(getattr(mlp, name), precision, inputs)
            for name in ("gate_proj", "up_proj", "down_proj")
        )
        self.norm1 = take_norm(layer.input_layernorm, precision)
        self.norm2 = take_norm(layer.post_attention_layernorm, precision)
        normed = hasattr(attention, "q_norm")  # Qwen3
        self.q_norm = take_norm(attention.q_norm, precision) if normed else nn.Identity()
        self.k_norm = take_norm(attention.k_norm, precision) if normed else nn.Identity()

    def forward(
        self,
        x: Tensor,
        past: Sequence[Tensor],
        attention: Attention,
        tables: Tables,
        *,
        last: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[Q,K,S,H] -> the same (last: [Q,K,1,H]), and past extended by the first candidate."""
        hidden = self.norm1(x)
        if last:
            key, value = project(hidden, [self.k, self.v])
            query, x = self.q(hidden[:, :, -1:]), x[:, :, -1:]
        else:
            query, key, value = project(hidden, [self.q, self.k, self.v])
        query = self.q_norm(_heads(query, attention.heads.queries))
        key = self.k_norm(_heads(key, attention.heads.keys))
        value = _heads(value, attention.heads.keys)
        seen, *extended = attention.over_prefix(query, key, value, past, tables)
        x = x + self.out(seen)
        gate, up = project(self.norm2(x), [self.gate, self.up])
        return (x + self.down(nn.functional.silu(gate) * up), *extended)


def _heads(x: Tensor, heads: int) -> Tensor:
    """[Q,K,S,heads*D] -> [Q,K,S,heads,D]."""
    return x.reshape(*x.shape[:3], heads, x.shape[3] // heads)


def rope_frequencies(rotary: Any) -> tuple[Tensor, Tensor]:
    """Return inverse frequencies [D/2] and the position axis (0, 1, 2) that each of them turns by.

    Where the checkpoint's rotary module leaves the three axes apart, they follow one another in
    sections; where it returns one table (laid out in sections or interleaved, by family), moving
    along one axis at a time shows which frequencies turn.
    """
    inverse = rotary.inv_freq.detach().float()
    half = len(inverse)
    axis = torch.full((half,), -1)
    for moved in range(3):
        position = torch.zeros(3, 1, 1, dtype=torch.long)
        position[moved] = 1
        sin = rotary(torch.zeros(1), position)[1][..., :half]
        if sin.ndim == 4:  # [3,1,1,D]
            sections = rotary.config.rope_scaling["mrope_section"]
            return inverse, torch.repeat_interleave(torch.arange(3), torch.tensor(sections))
        axis[sin.reshape(half).abs() > 0] = moved
    return inverse, axis


def _epsilon(norm: Any) -> float:
    return float(norm.variance_epsilon)
