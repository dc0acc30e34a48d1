"""Runs of the decoder and the vision tower in closed form: widths of layers times tokens."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from murank.folder.manifest import ScorerPart
from murank.folder.precision import INTEGER, Precision
from murank_export.plan.graph_file import GraphFile, LinearLayer
from murank_export.plan.graph_run import Execution, GraphRun, Step
from murank_export.plan.layer_costs import (
    GATED,
    GELU,
    MASK,
    QUICK_GELU,
    RESIDUAL,
    SOFTMAX,
    TURN,
    WIDE,
    AttentionSize,
    LayerCosts,
)

_IDS, _LOGITS = 3 * 8, 2 * 4  # bytes a token; a pair
_PARTS = 4  # passes over scores: those of prefix and own tokens side by side, and apart again
_PIXELS = 9  # passes: to floats, normalised, in the order of patches
_BETWEEN = "between"  # all of a layer that is no product


@dataclass(frozen=True)
class ScorerRuns:
    """The two graphs of a scorer, as a device runs them."""

    part: ScorerPart
    decoder: GraphFile
    vision: GraphFile
    how: Execution

    def prefill(self) -> GraphRun:
        """One query, behind the static prompt."""
        s = self.part.shapes
        return self._decode(1, s.prefill_tokens, s.static_tokens)

    def score(self, candidates: int) -> GraphRun:
        """The candidates of one query, behind its prefix."""
        s = self.part.shapes
        return self._decode(candidates, s.suffix_tokens, s.static_tokens + s.prefill_tokens)

    def rounded(self, precision: Precision) -> "ScorerRuns":
        """Foretell the same of another precision."""
        decoder, vision = (one.rounded(precision) for one in (self.decoder, self.vision))
        how = replace(self.how, precision=precision, fused=precision in INTEGER)
        return ScorerRuns(self.part, decoder, vision, how)

    def smaller(self, share: float) -> "ScorerRuns":
        """Foretell the same for images of a share of the area."""
        s, how = self.part.shapes, self.part.preprocessing
        tokens = max(1, int(s.vision_tokens * share))
        less = s.vision_tokens - tokens
        # Each run of tokens holds one image: the query's in the prefill, the candidate's behind it.
        shapes = replace(
            s, vision_tokens=tokens, prefill_tokens=s.prefill_tokens - less,
            suffix_tokens=s.suffix_tokens - less,
        )  # fmt: skip
        images = replace(how, height=max(1, int(how.height * share)))
        return replace(self, part=replace(self.part, shapes=shapes, preprocessing=images))

    def _decode(self, candidates: int, tokens: int, prefix: int) -> GraphRun:
        s, costs = self.part.shapes, LayerCosts(self.how)
        kv = 2 * s.kv_heads * s.head_dim * self.how.item_bytes  # bytes a token and layer
        rows = candidates * s.levels * s.vision_tokens + tokens - s.vision_tokens
        given = rows * s.hidden * self.how.token_bytes + _IDS * tokens + kv * prefix * s.layers
        returned = _LOGITS * candidates + kv * (prefix + tokens) * s.layers
        steps: list[Step] = []
        for index in range(s.layers):
            asking = 1 if index == s.layers - 1 else tokens
            steps += self._layer(index, candidates, asking, tokens, prefix)
        head = LinearLayer(s.hidden, 2, is_float=True, biased=False, bytes=2 * s.hidden * WIDE)
        steps.append(replace(costs.product("head", head, candidates), kind="fp32"))
        # The last layer, in which one token a pair asks, is small; its K/V come after the largest.
        attention, inner = self._attention(candidates, tokens, tokens, prefix)
        own = 2 * candidates * tokens * s.kv_heads * s.head_dim
        if self.how.fused:
            own += self._copied(candidates, tokens, prefix)
        live = given + returned - kv * (prefix + tokens)
        live += costs.live(s.hidden, attention, own, inner, gated=True)
        return self._run(self.decoder, steps, given, returned, live)

    def _attention(
        self, candidates: int, asking: int, tokens: int, prefix: int
    ) -> tuple[AttentionSize, int]:
        """A decoder layer's, and its MLP's width."""
        s, width = self.part.shapes, self._linear(self.decoder, "layers.0.q").outer
        shared = (candidates * tokens + prefix) * s.kv_heads * s.head_dim
        heads = width // s.head_dim
        attention = AttentionSize(candidates * asking, width, heads, shared, prefix + tokens)
        return attention, self._linear(self.decoder, "layers.0.gate").outer

    def _layer(
        self, index: int, candidates: int, asking: int, tokens: int, prefix: int
    ) -> Iterator[Step]:
        """One decoder layer; `asking` of each candidate's tokens are computed behind K/V."""
        s, item, costs = self.part.shapes, self.how.item_bytes, LayerCosts(self.how)
        of = {
            key: self._linear(self.decoder, f"layers.{index}.{key}")
            for key in ("q", "k", "v", "out", "gate", "up", "down")
        }
        attention, inner = self._attention(candidates, asking, tokens, prefix)
        rows, all_rows = attention.rows, candidates * tokens
        for key, one in of.items():
            yield costs.product(key, one, all_rows if key in ("k", "v") else rows)
        yield from costs.attention(attention)
        heads = rows * attention.width
        turned = heads + all_rows * of["k"].outer
        kept = attention.shared + attention.length * of["k"].outer  # of keys; and as many values
        passes = [
            RESIDUAL * 2 * rows * s.hidden,
            RESIDUAL * all_rows * s.hidden if index + 1 < s.levels else 0,
            costs.rope * turned,
            GATED * rows * inner,
        ]
        if self.how.fused:
            passes += [2 * TURN * heads, TURN * self._copied(candidates, tokens, prefix)]
            moved = costs.between(attention, SOFTMAX + 1)  # the mask is what products add to
        else:
            # The last but one: what comes from the prefix and from own tokens.
            passes += [TURN * turned, (TURN + RESIDUAL) * heads, TURN * 2 * kept]
            moved = costs.between(attention, SOFTMAX + _PARTS)
            moved += MASK * rows * attention.heads * tokens * WIDE
        moved += item * sum(passes)
        moved += costs.norm((all_rows + rows) * s.hidden)
        if "layers.0.q_norm.weight" in self.decoder.weights:
            moved += costs.norm(turned)
        moved += costs.around(of.values(), [of[key] for key in ("q", "gate", "out", "down")], rows)
        yield Step(_BETWEEN, 0, 0, moved)

    def _copied(self, candidates: int, tokens: int, prefix: int) -> int:
        """Values of a layer's K/V for each candidate: the prefix's, then with the own behind."""
        s = self.part.shapes
        return candidates * 2 * s.kv_heads * s.head_dim * (2 * prefix + tokens)

    def see(self, images: int) -> GraphRun:
        """One run of the vision tower."""
        s, how, costs = self.part.shapes, self.part.preprocessing, LayerCosts(self.how)
        embed, merge = (self._linear(self.vision, name) for name in ("embed", "merger.first"))
        pixels, tokens = images * 3 * how.height * how.width, images * s.vision_tokens
        rows = tokens * (merge.inner // embed.outer)
        *places, width = self.vision["cos"].shape
        heads = embed.outer // (width if len(places) == 2 else 2 * width)  # [S,1,D] or [S,D/2]
        attention = AttentionSize(rows, embed.outer, heads, rows * embed.outer, rows // images)
        steps = [
            costs.product("embed", embed, rows), Step(_BETWEEN, 0, 0, _PIXELS * pixels * WIDE)
        ]  # fmt: skip
        for index in range(self.vision.count("blocks.{}.out.weight")):
            steps += self._block(f"blocks.{index}.", attention)
        for name in ("merger", *(f"deepstack.{index}" for index in range(s.levels - 1))):
            steps += self._merger(name, tokens)
        inner = self._linear(self.vision, "blocks.0.second").inner
        gated = "blocks.0.first.1.weight" in self.vision.weights
        block = costs.live(embed.outer, attention, 2 * attention.shared, inner, gated=gated)
        returned = tokens * s.levels * s.hidden * self.how.token_bytes
        return self._run(self.vision, steps, pixels, returned, max(2 * pixels * WIDE, block))

    def _block(self, name: str, attention: AttentionSize) -> Iterator[Step]:
        costs, rows = LayerCosts(self.how), attention.rows
        gated = f"{name}first.1.weight" in self.vision.weights
        first = ("first.0", "first.1") if gated else ("first.0",)
        of = {
            key: self._linear(self.vision, name + key)
            for key in ("qkv.0", "qkv.1", "qkv.2", "out", *first, "second")
        }
        for key, one in of.items():
            yield costs.product(key, one, rows)
        yield from costs.attention(attention)
        heads, plain = rows * attention.width, f"{name}norm1.bias" in self.vision.weights
        turns = 4 if self.how.fused else 5
        passes = (2 * (RESIDUAL + costs.rope) + turns * TURN) * heads
        ungated = QUICK_GELU if "Sigmoid" in self.vision.operators else GELU
        passes += (GATED if gated else ungated) * rows * of["second"].inner
        moved = self.how.item_bytes * passes + 2 * costs.norm(heads, plain=plain)
        windows = MASK if "window_bias" in self.vision.weights else 0
        moved += costs.between(attention, SOFTMAX + windows)
        given = [of[key] for key in ("qkv.0", "first.0", "out", "second")]
        yield Step(_BETWEEN, 0, 0, moved + costs.around(of.values(), given, rows))

    def _merger(self, name: str, tokens: int) -> Iterator[Step]:
        costs = LayerCosts(self.how)
        both = [self._linear(self.vision, f"{name}.{key}") for key in ("first", "second")]
        for one in both:
            yield costs.product(name, one, tokens)
        values = tokens * both[0].inner
        moved = costs.norm(values) + GELU * values * self.how.item_bytes
        yield Step(_BETWEEN, 0, 0, moved + costs.around(both, both, tokens))

    def _linear(self, graph: GraphFile, name: str) -> LinearLayer:
        return graph.linear(name, self.how.half_bytes)

    def _run(
        self, graph: GraphFile, steps: list[Step], given: int, returned: int, live: int
    ) -> GraphRun:
        weights, nodes = graph.bytes(self.how.half_bytes), graph.nodes(widened=self.how.on_cpu)
        return GraphRun(tuple(steps), nodes, weights, given, returned, live)
