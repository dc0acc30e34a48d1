"""The shapes that each graph's plan is made for: optimisation profiles."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from murank.engine.encoder import BATCH as ENCODER_BATCH
from murank.engine.manifest import Manifest, ScorerPart
from murank.engine.names import past_names
from murank.engine.vision import BATCH as VISION_BATCH
from murank.images.preprocess import Preprocessing
from murank.trt._settings import BuildSettings

Shape = tuple[int, ...]
SHARED = frozenset({"text", "position_ids"})  # inputs that all queries of a run have in common


@dataclass(frozen=True)
class Range:
    """Shapes of one input, between which a run's may be."""

    least: Shape
    usual: Shape  # what the plan is tuned for
    most: Shape


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
    s = part.shapes
    candidates = settings.candidates or part.max_pairs
    return (
        _decoder_profile(part, "prefill", settings.max_queries, 1, s.static_tokens),
        _decoder_profile(
            part, "suffix", settings.max_queries, candidates, s.static_tokens + s.prefill_tokens
        ),
    )


def _decoder_profile(
    part: ScorerPart, phase: str, queries: int, candidates: int, prefix: int
) -> Profile:
    """Tokens and prefix are of one length each: only queries and candidates are free."""
    s = part.shapes
    tokens: int = getattr(s, f"{phase}_tokens")
    vision = (s.levels, s.vision_tokens, s.hidden)
    past = (s.kv_heads, prefix, s.head_dim)
    shapes = {
        "vision": _up_to((1, 1, *vision), (queries, candidates, *vision)),
        "text": _fixed((tokens - s.vision_tokens, s.hidden)),
        "position_ids": _fixed((3, tokens)),
    }
    for name in past_names(s.layers):
        shapes[name] = _up_to((1, *past), (queries, *past))
    return Profile("scoring" if phase == "suffix" else phase, shapes)


def _fixed(shape: Shape) -> Range:
    return Range(shape, shape, shape)


def _up_to(least: Shape, most: Shape) -> Range:
    return Range(least, most, most)
