"""Where the time of a query goes: named stages, and a watch that adds up their seconds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Stage = Literal[
    "decode",  # file to pixels, resized for encoder and MLLM
    "embed",  # pixels to a feature
    "retrieve",  # the nearest gallery images
    "vision",  # images to vision tokens: the query, and candidates not seen before
    "prefill",  # K/V of the prompt up to the candidate
    "score",  # candidates to mu
    "fuse",  # mu into distances
    "rerank",  # neighbours to the final order
]
STAGES: tuple[Stage, ...] = get_args(Stage)


class StageWatch:
    """Adds up seconds by stage; one query (or group of queries) is one watch."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Count the time inside to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
