"""A process of its own that asks an engine, and prints which of its threads worked.

Arguments: engine folder, providers, threads (0: not told), folder for what is compiled.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from running_threads import RunningThreads, cpu_seconds, running, worked_since

from murank import Engine

_LOOKS = 20
_PATIENCE = 60_000  # looks, a millisecond apart: whoever is stopped meanwhile loses none


def worked(call: Callable[[], object]) -> int:
    """Call once all others rest; return how many threads had a core until they rest again."""
    call()
    rest()
    before = cpu_seconds()
    call()
    rest()
    return worked_since(before)


def rest() -> None:
    """Sleep until nobody works: then, and no earlier, the kernel's account is complete.

    Raises TimeoutError if somebody works on and on.
    """
    for _ in range(_PATIENCE):
        time.sleep(0.001)
        if len(running()) <= 1:
            return
    raise TimeoutError(f"in {_PATIENCE} looks, threads beside this one never rested")


def main() -> None:
    """Ask each graph."""
    folder, providers, threads, plans = sys.argv[1:]
    with Engine.from_pretrained(
        folder, providers=providers, threads=int(threads) or None, plans=Path(plans)
    ) as engine:
        scorer, encoder = engine.need_scorer(), engine.need_encoder()
        how, other = scorer.part.preprocessing, encoder.part.preprocessing
        crops = np.random.default_rng(0).integers(
            0, 256, (40, 3, how.height, how.width), dtype=np.uint8
        )
        unseen = iter(crops)
        tokens = scorer.vision.of([next(unseen) for _ in range(8)])
        prefix = scorer.decoder.prefill(tokens[:1])
        small = np.zeros((8, 3, other.height, other.width), np.uint8)
        told = {
            "encoder": worked(lambda: encoder.features(small)),
            "vision": worked(lambda: scorer.vision.of([next(unseen) for _ in range(8)])),
            "prefill": worked(lambda: scorer.decoder.prefill(tokens[:1])),
            "score": worked(lambda: scorer.decoder.logits(prefix, tokens[None])),
        }
        with RunningThreads() as watch:
            while watch.looks < _LOOKS:
                scorer.decoder.logits(prefix, tokens[None])
        print(json.dumps({"worked": told, "bound": len(watch.bound)}))


if __name__ == "__main__":
    main()
