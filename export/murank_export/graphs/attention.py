"""Attention of the decoder and of vision towers, written in two ways.

`Portable` is made of products, sums and a softmax, which TensorRT and OpenVINO know too. `Fused` is
ONNX's own RotaryEmbedding and Attention, for graphs that onnxruntime's CPU alone runs, from 1.24
on: no copy of scores, and no Transpose, since tokens stay rows with their heads side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from murank.folder.precision import INTEGER, Precision

OPSET = 23  # of ONNX, the first with RotaryEmbedding and Attention
_HIDDEN = -1e9  # added to scores that do not count

Tables = tuple[Tensor, ...]


@dataclass(frozen=True)
class Heads:
    """How many there are, of queries and of keys and values, and their width."""

    queries: int
    keys: int
    width: int

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return float(self.width**-0.5)


class Attention(Protocol):
    """How queries, keys and values [...,tokens,heads,D] become what heads have seen."""

    heads: Heads

    def rotation(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Angles [S,D/2] -> cos and sin, as `within` wants them."""
        ...

    def tables(self, angles: Tensor, factor: float, prefix: int, dtype: torch.dtype) -> Tables:
        """Angles [S,D/2] -> what `over_prefix` needs, the same in all layers.

        cos and sin for keys, cos and sin for queries, and what is added to the scores of later
        tokens. `factor` multiplies cos and sin; `prefix` is the length of the past.
        """
        ...

    def over_prefix(
        self, query: Tensor, key: Tensor, value: Tensor, past: Sequence[Tensor], tables: Tables
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotate; attend to the prefix, and causally to the tokens of one's own candidate.

        query          [Q,K,S',heads,D], of all tokens or of the last one alone
        key, value     [Q,K,S,KVH,D]
        past           keys and values of the prefix, which a query's candidates share: [Q,KVH,P,D]
        returns        [Q,K,S',heads*D], and past extended by the first candidate: [Q,KVH,P+S,D]
        """
        ...

    def within(
        self, query: Tensor, key: Tensor, value: Tensor, rotation: Tables, bias: Tensor | None
    ) -> Tensor:
        """Rotate, and attend within an image: [B,S,heads,D] -> [B,S,heads*D].

        `bias` [S,S] is added to scores.
        """
        ...


def attention_of(precision: Precision, heads: Heads, *, portable: bool = False) -> Attention:
    """Return the way of a precision: the integer ones are for onnxruntime's CPU alone."""
    return Fused(heads) if precision in INTEGER and not portable else Portable(heads)


class Portable:
    """Operators that every runtime knows. The prefix is never copied for the candidates."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads

    def rotation(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """[S,1,D] each: see `rotary_tables`."""
        return rotary_tables(angles[:, None, :])

    def tables(self, angles: Tensor, factor: float, prefix: int, dtype: torch.dtype) -> Tables:
        """Four of [S,1,D], those for queries with the scale of the scores, and [S,S]."""
        del prefix  # whose scores are apart
        cos, sin = (table * factor for table in self.rotation(angles))
        scale = self.heads.scale
        rotations = (table.to(dtype) for table in (cos, sin, cos * scale, sin * scale))
        return (*rotations, _future(angles.shape[0]))

    def over_prefix(
        self, query: Tensor, key: Tensor, value: Tensor, past: Sequence[Tensor], tables: Tables
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Attention`."""
        of_keys, of_queries, future = _split(tables, query, key)
        query = rotate(query, *of_queries)
        key = rotate(key, *of_keys).permute(0, 3, 1, 2, 4)
        value = value.permute(0, 3, 1, 2, 4)
        out = self._attend(query, key, value, past, future)
        old_key, old_value = past
        return (
            out,
            torch.cat([old_key, key[:, :, 0]], 2),
            torch.cat([old_value, value[:, :, 0]], 2),
        )

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, past: Sequence[Tensor], future: Tensor
    ) -> Tensor:
        """[Q,K,S',heads,D] to past [Q,KVH,P,D] and own [Q,KVH,K,S,D]: [Q,K,S',heads*D].

        The prefix scores of all candidates of a query are one matrix product: candidates, heads of
        a group and tokens are folded into its rows.
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

    def within(
        self, query: Tensor, key: Tensor, value: Tensor, rotation: Tables, bias: Tensor | None
    ) -> Tensor:
        """See `Attention`."""
        cos, sin = rotation
        query = rotate(query, cos * self.heads.scale, sin * self.heads.scale).transpose(1, 2)
        key = rotate(key, cos, sin).transpose(1, 2)
        # In float32: the scores of trained towers are too large for float16's steps.
        scores = torch.matmul(query.to(torch.float32), key.to(torch.float32).transpose(-1, -2))
        if bias is not None:
            scores = scores + bias
        out = torch.matmul(torch.softmax(scores, -1).to(value.dtype), value.transpose(1, 2))
        return _side_by_side(out.transpose(1, 2))


class Fused:
    """Heads stay side by side in a token's row, and nothing is turned or copied but the prefix.

    Attention wants keys and values of the prefix once a candidate, for the time of one layer: with
    few heads of keys they are smaller than the scores that `Portable` copies instead.
    """

    def __init__(self, heads: Heads) -> None:
        self.heads = heads

    def rotation(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """[S,D/2] each."""
        return angles.cos(), angles.sin()

    def tables(self, angles: Tensor, factor: float, prefix: int, dtype: torch.dtype) -> Tables:
        """Four of [S,D/2], and [S,P+S].

        The mask is written out: where a causal one begins behind a past, versions of ONNX and of
        what runs it do not agree.
        """
        rotation = [(table * factor).to(dtype) for table in self.rotation(angles)]
        length = angles.shape[0]
        mask = torch.cat([torch.zeros(length, prefix), _future(length)], 1)
        return (*rotation, *rotation, mask.to(dtype))

    def over_prefix(
        self, query: Tensor, key: Tensor, value: Tensor, past: Sequence[Tensor], tables: Tables
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Attention`."""
        of_keys, of_queries, mask = _split(tables, query, key)
        queries, candidates = query.shape[:2]
        each = queries * candidates
        query, key, value = (x.reshape(each, *x.shape[2:]) for x in (query, key, value))
        prefix = [
            one[:, None].expand(-1, candidates, -1, -1, -1).reshape(each, *one.shape[1:])
            for one in past
        ]
        out, *present = torch.onnx.ops.attention(
            self._rotated(query, of_queries), self._rotated(key, of_keys), _side_by_side(value),
            mask, *prefix, scale=self.heads.scale,
            q_num_heads=self.heads.queries, kv_num_heads=self.heads.keys,
        )[:3]  # fmt: skip
        first_key, first_value = (
            one.reshape(queries, candidates, *one.shape[1:])[:, 0] for one in present
        )
        return out.reshape(queries, candidates, *out.shape[1:]), first_key, first_value

    def within(
        self, query: Tensor, key: Tensor, value: Tensor, rotation: Tables, bias: Tensor | None
    ) -> Tensor:
        """See `Attention`."""
        out: Tensor = torch.onnx.ops.attention(
            self._rotated(query, rotation), self._rotated(key, rotation), _side_by_side(value),
            bias, scale=self.heads.scale,
            q_num_heads=self.heads.queries, kv_num_heads=self.heads.keys,
        )[0]  # fmt: skip
        return out

    def _rotated(self, x: Tensor, tables: Tables) -> Tensor:
        """[B,S,heads,D] by [S,D/2] -> [B,S,heads*D]."""
        cos, sin = (table.expand(x.shape[0], -1, -1) for table in tables)
        return torch.onnx.ops.rotary_embedding(_side_by_side(x), cos, sin, num_heads=x.shape[2])


def _future(length: int) -> Tensor:
    """[S,S]: what is added to the scores of a token's later ones."""
    order = torch.arange(length)
    return torch.where(order[:, None] >= order[None, :], 0.0, _HIDDEN)


def _split(tables: Tables, query: Tensor, key: Tensor) -> tuple[Tables, Tables, Tensor]:
    """Rotations of keys and of queries, and the mask; where only the last token asks, its own."""
    *of_keys, cos, sin, mask = tables
    if query.shape[2] != key.shape[2]:
        cos, sin, mask = cos[-1:], sin[-1:], mask[-1:]
    return tuple(of_keys), (cos, sin), mask


def _side_by_side(x: Tensor) -> Tensor:
    """[...,heads,D] -> [...,heads*D]."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [...,D] with tables [...,D] that broadcast; see `rotary_tables`."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([b, a], -1) * sin


def rotary_tables(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Angles [...,D/2] -> cos and sin [...,D], the sin signed as `rotate` wants it.

    As wide as a head: two products and a sum over whole heads take half the time of six over
    halves.
    """
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def has_fused(module: nn.Module) -> bool:
    """Whether a graph of this module needs `OPSET`."""
    return any(isinstance(getattr(part, "attention", None), Fused) for part in module.modules())
