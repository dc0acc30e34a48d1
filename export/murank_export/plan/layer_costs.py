"""Costs of the parts of a transformer's layer, as murank's graphs are written.

Operations are exact. Bytes between the products are passes over activations: how often a graph as
murank_export.graphs makes it reads or writes them.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from murank.folder.precision import INTEGER
from murank_export.plan.graph_file import LinearLayer
from murank_export.plan.graph_run import Execution, Step

WIDE = 4  # bytes: attention scores are float32, and so are means of squares
# Passes.
RESIDUAL, TURN, MASK, SOFTMAX = 3, 2, 2, 2
_ROPE = 11  # two products, halves swapped, a sum
_FUSED_ROPE = 2
_BIAS = 2
_SQUARES, _LAYER_NORM = 5, 2  # square, mean, division by the root
GATED, QUICK_GELU, GELU = 8, 7, 11
# Bytes a value: its token's largest and least, then steps; what they left, then finer ones. And a
# result: to float, times both scales; the sum of two.
_FIRST_STEPS, _FINER_STEPS, _SCALED, _SUMMED = 13, 22, 24, 12


@dataclass(frozen=True)
class AttentionSize:
    """One layer's."""

    rows: int  # tokens that ask
    width: int  # heads x head_dim
    heads: int
    shared: int  # values of keys, and as many of values
    length: int  # tokens that each one asks

    @property
    def scores(self) -> int:
        """Their number."""
        return self.rows * self.heads * self.length


@dataclass(frozen=True)
class LayerCosts:
    """Of a precision on a device."""

    how: Execution

    def product(self, name: str, one: LinearLayer, rows: int) -> Step:
        """Return a linear layer applied to rows."""
        how, item = self.how, self.how.item_bytes
        operations, moved = 2 * rows * one.inner * one.outer, rows * (one.inner + one.outer) * item
        if one.is_float:
            return Step(name, operations, one.bytes, moved, how.floats)
        if how.widens:  # written and read as floats
            moved += 2 * one.inner * one.outer * item
        elif how.narrow != how.floats:
            moved = how.terms * rows * (one.inner + one.outer * item)
        return Step(name, how.terms * operations, one.bytes, moved, how.narrow)

    def attention(self, of: AttentionSize) -> Iterator[Step]:
        """Yield its two products."""
        operations = 2 * of.rows * of.width * of.length
        moved = of.rows * of.width + of.shared + of.scores
        yield Step("scores", operations, 0, moved * WIDE, "fp32")
        yield Step("values", operations, 0, moved * self.how.item_bytes, self.how.floats)

    def between(self, of: AttentionSize, score_passes: int) -> int:
        """Return bytes around attention's products, biases and rotations apart."""
        cast = self._cast * (of.rows * of.width + of.shared + of.scores)
        return score_passes * of.scores * WIDE + cast

    @property
    def rope(self) -> int:
        """Passes of a rotation."""
        return _FUSED_ROPE if self.how.fused else _ROPE

    def norm(self, values: int, *, plain: bool = False) -> int:
        """Return bytes of an RMSNorm; `plain`: of a LayerNorm, which is one node."""
        item = self.how.item_bytes
        each = _LAYER_NORM * item if plain else _SQUARES * WIDE + 2 * item + 2 * self._cast
        return each * values

    def around(
        self, layers: Collection[LinearLayer], given: Collection[LinearLayer], rows: int
    ) -> int:
        """Return bytes around linear layers: biases; steps of what is given and returned.

        `given`: one of those layers that are given the same.
        """
        how = self.how
        moved = _BIAS * rows * sum(one.outer for one in layers if one.biased) * how.item_bytes
        steps = rows * sum(one.inner for one in given if not one.is_float)
        results = rows * sum(one.outer for one in layers if not one.is_float)
        if how.precision in INTEGER:
            more = how.terms - 1
            moved += (_FIRST_STEPS + more * _FINER_STEPS) * steps
            moved += (how.terms * _SCALED + more * _SUMMED) * results
        elif how.precision in ("int8-qdq", "fp8"):  # a CPU widens them again
            moved += (1 + how.on_cpu) * steps * (how.item_bytes + 1)
        return moved

    def live(
        self, hidden: int, of: AttentionSize, key_values: int, inner: int, *, gated: bool
    ) -> int:
        """Return the most bytes alive in a layer: scores, or the MLP's width often.

        Scores are there twice, side by side and apart, unless attention is one operator.
        """
        item, times = self.how.item_bytes, 1 if self.how.fused else 2
        attention = (of.rows * of.width + key_values) * item + times * of.scores * WIDE
        return of.rows * hidden * item + max(attention, (3 + gated) * of.rows * inner * item)

    @property
    def _cast(self) -> int:
        """Bytes read and written to widen a value, or to narrow it."""
        return 0 if self.how.floats == "fp32" else self.how.item_bytes + WIDE
