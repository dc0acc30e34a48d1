"""The decoder graph: one set of weights for the prefill of a query and the scoring of candidates.

A candidate's tokens attend to the prefix's K/V, which all candidates of a query share and which are
never copied, and to one another causally, under one softmax. Only what the answer needs is computed
in the last layer: K/V of all tokens, the rest of the last token alone.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from murank.folder.precision import Precision
from murank_export.graphs.layers import (
    Inputs,
    RMSNorm,
    float_dtype,
    host_dtype,
    project,
    rotary_tables,
    rotate,
    take_linear,
    take_norm,
)

_FUTURE = -1e9  # added to scores of later tokens
_Rope = tuple[Tensor, Tensor]


class Decoder(nn.Module):
    """Made from a loaded checkpoint, whose decoder layers it takes over (and their `inputs`).

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
    ) -> None:
        super().__init__()
        text, config = model.model.language_model, model.config.text_config
        self.dtype, self.host_dtype = float_dtype(precision), host_dtype(precision)
        self.num_heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        head_dim = getattr(config, "head_dim", None)
        self.head_dim = int(head_dim or config.hidden_size // self.num_heads)
        self.levels = 1 + len(getattr(model.config.vision_config, "deepstack_visual_indexes", []))
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
        rope, scaled = self._rope(position_ids)
        order = torch.arange(x.shape[2])
        future = torch.where(order[:, None] >= order[None, :], 0.0, _FUTURE)
        present: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            last = index == self.num_layers - 1
            x, key, value = cast(_Layer, layer)(
                x, past[2 * index : 2 * index + 2], self, rope, scaled, future, last=last
            )
            for old, new in zip(past[2 * index : 2 * index + 2], (key, value), strict=True):
                present.append(torch.cat([old, new[:, :, 0]], 2))
            if index + 1 < self.levels:
                x = x + torch.cat([vision[:, :, index + 1], torch.zeros_like(behind)], 2)
        answer = self.norm(x[:, :, -1].to(torch.float32))
        return (torch.matmul(answer, self.head), *present)

    def _rope(self, position_ids: Tensor) -> tuple[_Rope, _Rope]:
        """Tables [S,1,D] for keys, and for queries, which carry the scale of the scores."""
        position = position_ids.to(torch.float32)[self.axis].t()  # [S,D/2]
        angles = (position * self.inverse_frequency)[:, None, :]
        cos, sin = (table * self.rope_scale for table in rotary_tables(angles))
        scale = self.head_dim**-0.5
        tables = [table.to(self.dtype) for table in (cos, sin, cos * scale, sin * scale)]
        return (tables[0], tables[1]), (tables[2], tables[3])


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
        model: Decoder,
        rope: _Rope,
        scaled: _Rope,
        future: Tensor,
        *,
        last: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[Q,K,S,H] -> the same (last: [Q,K,1,H]), and key and value [Q,KVH,K,S,D]."""
        hidden = self.norm1(x)
        if last:
            key, value = project(hidden, [self.k, self.v])
            query = self.q(hidden[:, :, -1:])
            x, future = x[:, :, -1:], future[-1:]
            scaled = (scaled[0][-1:], scaled[1][-1:])
        else:
            query, key, value = project(hidden, [self.q, self.k, self.v])
        query = rotate(self.q_norm(_heads(query, model.num_heads)), *scaled)
        key = rotate(self.k_norm(_heads(key, model.kv_heads)), *rope).permute(0, 3, 1, 2, 4)
        value = _heads(value, model.kv_heads).permute(0, 3, 1, 2, 4)
        x = x + self.out(_attend(query, key, value, past, future))
        gate, up = project(self.norm2(x), [self.gate, self.up])
        return x + self.down(nn.functional.silu(gate) * up), key, value


def _heads(x: Tensor, heads: int) -> Tensor:
    """[Q,K,S,heads*D] -> [Q,K,S,heads,D]."""
    return x.reshape(*x.shape[:3], heads, x.shape[3] // heads)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, past: Sequence[Tensor], future: Tensor
) -> Tensor:
    """Attention of [Q,K,S',heads,D] to past [Q,KVH,P,D] and own [Q,KVH,K,S,D]: [Q,K,S',heads*D].

    The prefix scores of all candidates of a query are one matrix product: candidates, heads of a
    group and tokens are folded into its rows.
    """
    q, k, s, heads, d = query.shape
    kv, length = key.shape[1], key.shape[3]
    group = heads // kv
    old_key, old_value = past
    width = old_key.shape[2]
    query = query.reshape(q, k, s, kv, group, d).permute(0, 3, 1, 4, 2, 5)  # [Q,KVH,K,G,S',D]
    folded, apart = (q, kv, k * group * s), (q, kv, k, group * s)
    # Scores of these families reach thousands, where steps of float16 are whole numbers.
    wide = query.to(torch.float32)
    to_past = torch.matmul(wide.reshape(*folded, d), old_key.to(wide.dtype).transpose(-1, -2))
    to_own = torch.matmul(wide.reshape(*apart, d), key.to(wide.dtype).transpose(-1, -2))
    to_own = to_own.reshape(q, kv, k, group, s, length) + future
    scores = torch.cat([to_past.reshape(q, kv, k, group, s, width), to_own], -1)
    weights = torch.softmax(scores, -1).to(query.dtype)
    from_past = torch.matmul(weights[..., :width].reshape(*folded, width), old_value)
    from_own = torch.matmul(weights[..., width:].reshape(*apart, length), value)
    out = from_past.reshape(q, kv, k, group, s, d) + from_own.reshape(q, kv, k, group, s, d)
    return out.permute(0, 2, 4, 1, 3, 5).reshape(q, k, s, heads * d)


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
