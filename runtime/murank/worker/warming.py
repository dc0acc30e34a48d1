"""First runs, which allocate and choose, on made images before anybody's deadline counts."""

import io
from typing import Any

import numpy as np
from PIL import Image

from murank.engine.deadline import IN_TIME_BATCH
from murank.engine.engine import Engine
from murank.engine.steps import Steps

_ROUNDS = 3
_SECONDS = 1.0  # a slow engine keeps no short deadline anyway
_FAR_MS = 1e9
_SIDES = (256, 128)  # of a crop


def warm(engine: Engine) -> Steps[None]:
    """Ask about made crops, a few at a time as deadlines do; nothing is kept of them.

    Nor of how long it took: a busy start would keep the first queries from asking anything.
    """
    random, start = np.random.default_rng(0), engine.pace.clock()
    for _ in range(_ROUNDS):
        yield None
        query, *others = crops = [_made(random) for _ in range(1 + IN_TIME_BATCH)]
        if engine.encoder is not None:
            engine.embed([query])
        if engine.scorer is not None:
            try:
                engine.rank(query, others, deadline_ms=_FAR_MS)
            finally:
                for crop in crops:
                    engine.forget(crop)
        if engine.pace.clock() - start > _SECONDS:
            break
    engine.pace.forget()


def _made(random: np.random.Generator) -> bytes:
    data = io.BytesIO()
    pixels: Any = random.integers(0, 256, (*_SIDES, 3), np.uint8)
    Image.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()
