"""Tracks asked about among themselves, in idle time."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from murank.engine.deadline import Deadline
from murank.engine.engine import Engine
from murank.engine.stopwatch import StageWatch
from murank.gallery.gallery_result import Related
from murank.gallery.shot_records import Picture
from murank.gallery.shot_tokens import ShotTokens
from murank.gallery.state import State
from murank.gallery.stored_shots import best_shots, pictures
from murank.gallery.track_pairs import TrackPair, asked_about, next_unrelated, who_answers

FEW = 10  # nearest tracks: twice as many gave little more (docs/appliance.md)
_LAST = 2**63 - 1


class Relating:
    """One call of `Gallery.relate`."""

    def __init__(self, engine: Engine, state: State, deadline: Deadline) -> None:
        self._engine, self._scorer = engine, engine.need_scorer()
        self._state, self._deadline = state, deadline
        self._watch = StageWatch()

    def run(self, budget: int | None, progress: Callable[[int, int], None] | None) -> Related:
        """Ask until all is done, or the budget or the time is over."""
        state, pairs, tracks, unit = self._state, 0, 0, _LAST
        state.forget_other_engines(who_answers(self._engine))
        total = state.file.count("unrelated")
        while budget is None or pairs < budget:
            following = next_unrelated(state.file, unit)
            if following is None or not self._deadline.fits(prefill=1, score=1):
                break
            unit = following
            asked, done = self._ask(unit, FEW if budget is None else min(FEW, budget - pairs))
            pairs, tracks = pairs + asked, tracks + done
            if not done:
                break
            if progress is not None:
                progress(tracks, max(total, tracks))
        return Related(pairs, tracks, state.file.count("unrelated"))

    def _ask(self, unit: int, most: int) -> tuple[int, bool]:
        """Ask about a unit and its nearest; returns the pairs, and whether these were all."""
        shots, images = self._shown(unit)
        wanted = len(shots) - 1
        shots, images = shots[: most + 1], images[: most + 1]
        mu = self._mu(images) if wanted > 0 else np.empty(0)
        own = shots[0][1] if shots else 0
        # An answer that is no number is none: the pair is not fused.
        pairs = [
            TrackPair(other, own, shot, float(one))
            for (other, shot), one in zip(shots[1:], mu, strict=False)
            if np.isfinite(one)
        ]
        done = len(mu) >= wanted
        self._state.relate(unit, pairs, done=done)
        self._forget_erased(shots, images)
        return len(mu), done

    def _shown(self, unit: int) -> tuple[list[tuple[int, int]], list[Picture]]:
        """Return units with their best shots, and its picture each: this one, then its nearest."""
        file = self._state.reads
        known = asked_about(file, unit)
        near = self._state.nearest_units(unit, FEW).tolist()
        wanted = [unit, *(other for other in near if other not in known)]
        best = {one: shot for one, (_, shot) in best_shots(file, wanted).items() if shot}
        there = pictures(file, list(best.values()))
        shown = [(one, best[one]) for one in wanted if best.get(one) in there]
        if not shown or shown[0][0] != unit:
            return [], []
        return shown, [there[shot] for _, shot in shown]

    def _mu(self, images: Sequence[Picture]) -> NDArray[np.float64]:
        """Return mu [n] of the first picture with each other, nothing where time is over."""
        scorer, deadline, count = self._scorer, self._deadline, len(images) - 1
        tokens = ShotTokens(scorer, images).of(range(count + 1), deadline, self._watch, score=count)
        if tokens is None or not deadline.fits(prefill=1, score=count):
            return np.empty(0)
        with deadline.pace.timed("prefill", self._watch):
            prefix = scorer.decoder.prefill(tokens[:1])
        parts = []
        for part in scorer.batches(count):
            with deadline.pace.timed("score", self._watch, part.stop - part.start):
                parts.append(scorer.decoder.logits(prefix, tokens[1:][part][None])[0])
        return scorer.mu(np.concatenate(parts))

    def _forget_erased(self, shots: Sequence[tuple[int, int]], images: Sequence[Picture]) -> None:
        """Let the engine forget what was erased while it was asked."""
        file = self._state.file
        there = set(file.texts("SELECT shot FROM shots WHERE shot IN", [s for _, s in shots]))
        for (_, shot), shown in zip(shots, images, strict=True):
            if shot not in there and shown.key is not None:
                self._engine.forget_key(shown.key)
