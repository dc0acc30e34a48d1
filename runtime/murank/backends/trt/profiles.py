"""The shapes that each graph's plan is made for: optimisation profiles."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from murank.backends.trt.build_settings import BuildSettings
from murank.folder.batches import ENCODER_BATCH, VISION_BATCH
from murank.folder.kv_names import past_names
from murank.folder.manifest import Manifest, ScorerPart
from murank.images.preprocess import Preprocessing

Shape = tuple[int, ...]
Phase = Literal["prefill", "suffix"]
_USUAL_CANDIDATES = 20  # of a query
SHARED = frozenset({"text", "position_ids"})  # inputs that all queries of a run have in common


@dataclass(frozen=True)
class Range:
    """Shapes of one input, between which a run's may be."""

    least: Shape
    usual: Shape  # what the plan is tuned for
    most: Shape

    def times(self, other: "Range") -> "Range":
        """Return the shapes that have the axes of both."""
        return Range(self.least + other.least, self.usual + other.usual, self.most + other.most)


@dataclass(frozen=True)
class Profile:
    """Shapes of all inputs for one kind of run."""

    name: str
    shapes: Mapping[str, Range]

    def to_json(self) -> dict[str, Any]:
        """Return shapes as texts, "1x3x280x140" each."""
        return {
            name: ["x".join(map(str, shape)) for shape in (one.least, one.usual, one.most)]
            for name, one in self.shapes.items()
        }


@dataclass(frozen=True)
class Graph:
    """What one plan is made of. Its weights are held once, whatever the number of profiles."""

    name: str
    file: str  # in the engine folder
    profiles: tuple[Profile, ...]


def graphs_of(manifest: Manifest, settings: BuildSettings) -> list[Graph]:
    """Return the graphs of the parts asked for, in the order in which plans are made."""
    return list(_graphs(manifest, settings))


def _graphs(manifest: Manifest, settings: BuildSettings) -> Iterator[Graph]:
    wanted = settings.parts or ("encoder", "scorer")
    encoder, scorer = manifest.encoder, manifest.scorer
    if encoder is not None and "encoder" in wanted:
        yield Graph("encoder", encoder.graph, _images(encoder.preprocessing, ENCODER_BATCH))
    if scorer is not None and "scorer" in wanted:
        yield Graph("vision", scorer.vision, _images(scorer.preprocessing, VISION_BATCH))
        yield Graph("decoder", scorer.decoder, _decoder(scorer, settings))


def _images(how: Preprocessing, batch: int) -> tuple[Profile, ...]:
    """A query's image comes alone, those of a gallery in batches."""
    image = (3, how.height, how.width)
    one, many = (1, *image), (batch, *image)
    return (
        Profile("one", {"images": _fixed(one)}),
        Profile("batch", {"images": _up_to((2, *image), many)}),
    )


def _decoder(part: ScorerPart, settings: BuildSettings) -> tuple[Profile, ...]:
    """One query's runs, then those of several; the first profile that a run fits is taken.

    TensorRT chooses kernels that are valid from the least to the most of a profile, and fastest at
    the usual: the largest run is a bound, and what is asked most is what they are tuned for.
    """
    most, queries = settings.candidates or part.max_pairs, settings.max_queries
    # At least two, of a prefill's one candidate, too: where no length is free, TensorRT multiplies
    # the single last token by weights that are turned round, and keeps those beside the others.
    one, alone = _fixed((1,)), Range((1,), (1,), (2,))
    candidates = Range((1,), (min(_USUAL_CANDIDATES, most),), (max(2, most),))
    profiles = [
        _decoder_profile(part, "prefill", "prefill", one, alone),
        _decoder_profile(part, "scoring", "suffix", one, candidates),
    ]
    if queries > 1:
        many = Range((1,), (queries,), (queries,))
        profiles += [
            _decoder_profile(part, "prefill-many", "prefill", many, one),
            _decoder_profile(part, "scoring-many", "suffix", many, candidates),
        ]
    return tuple(profiles)


def _decoder_profile(
    part: ScorerPart, name: str, phase: Phase, queries: Range, candidates: Range
) -> Profile:
    """Tokens and prefix are of one length each: only queries and candidates are free."""
    s = part.shapes
    tokens = s.prefill_tokens if phase == "prefill" else s.suffix_tokens
    prefix = s.static_tokens + (0 if phase == "prefill" else s.prefill_tokens)
    pairs = queries.times(candidates)
    shapes = {
        "vision": pairs.times(_fixed((s.levels, s.vision_tokens, s.hidden))),
        "text": _fixed((tokens - s.vision_tokens, s.hidden)),
        "position_ids": _fixed((3, tokens)),
    }
    past = queries.times(_fixed((s.kv_heads, prefix, s.head_dim)))
    return Profile(name, {**shapes, **dict.fromkeys(past_names(s.layers), past)})


def _fixed(shape: Shape) -> Range:
    return Range(shape, shape, shape)


def _up_to(least: Shape, most: Shape) -> Range:
    return Range(least, most, most)
