"""How long an engine takes on this machine, looked at for a few seconds."""

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from murank.engine.engine import Engine
from murank.folder.manifest import Manifest

CANDIDATES = 20
_SECONDS = 5.0
Clock = Callable[[], float]


def query_ms(
    engine: Engine, *, seconds: float = _SECONDS, clock: Clock = time.perf_counter
) -> float:
    """Return the median milliseconds of one query, over as many as fit into the time.

    That is the prefill and 20 candidates with known vision tokens; of an engine without an MLLM
    one image's features. Images are drawn: what is on them takes no time. The first query, which
    compiles and fills caches, counts only if it used up the time.
    """
    ask = _query(engine)
    start = clock()
    spent = [_timed(ask, clock)]
    while clock() - start + spent[-1] < seconds:
        spent.append(_timed(ask, clock))
    return 1e3 * statistics.median(spent[1:] or spent)


def what_is_timed(manifest: Manifest) -> str:
    """Return what one query is."""
    if manifest.scorer is None:
        return "an image's features"
    return f"a query of {min(CANDIDATES, manifest.scorer.max_pairs)} candidates known by sight"


def _query(engine: Engine) -> Callable[[], object]:
    if engine.scorer is None:
        encoder = engine.need_encoder()
        how = encoder.part.preprocessing
        image = _drawn(1, how.height, how.width)
        return lambda: encoder.features(image)
    scorer = engine.scorer
    how, count = scorer.part.preprocessing, min(CANDIDATES, scorer.part.max_pairs)
    seen = scorer.vision.of(list(_drawn(count + 1, how.height, how.width)))
    query, candidates = seen[:1], seen[None, 1:]
    return lambda: scorer.decoder.logits(scorer.decoder.prefill(query), candidates)


def _drawn(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def _timed(ask: Callable[[], object], clock: Clock) -> float:
    start = clock()
    ask()
    return clock() - start
