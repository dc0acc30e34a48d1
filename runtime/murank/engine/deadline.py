"""Deadlines: how long steps took lately, and candidates that are asked while there is time."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.engine.decoder import Prefix
from murank.engine.memory_cache import Key, content_key
from murank.engine.no_answer import first_no_number, no_answer
from murank.engine.scorer import Pixels, Scorer
from murank.engine.steps import PairBatch, Steps, at_once
from murank.engine.stopwatch import Stage, StageWatch
from murank.images import ImageSource, prepare
from murank.images.arguments import called, check_number, source_name

Clock = Callable[[], float]  # seconds

# As TCP foresees round trips (Jacobson 1988): a mean and a mean deviation, both forgetting.
_NEW = 1 / 4  # weight of the newest
_DEVIATIONS = 2  # added to the mean
_MOST_AT_ONCE = 4  # times what was expected: one stall is no new pace
_FADE = 0.85  # of an estimate, each time it refuses a step: a stall costs a few queries
IN_TIME_BATCH = 4  # candidates between two looks at the clock


_Kind = tuple[Stage, bool]  # whether it is of one item: several at once take less each


class Pace:
    """Seconds an item of each step, learnt while it works. Safe from several threads."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        self._known: dict[_Kind, tuple[float, float]] = {}  # mean and mean deviation
        self._once: set[_Kind] = set()  # seen once so far
        self._lock = threading.Lock()

    @contextmanager
    def timed(
        self, step: Stage, watch: StageWatch, items: int = 1, *, learn: bool = True
    ) -> Iterator[None]:
        """Count what happens inside to the stage, and learn from it; nothing from an error.

        Large runs should not teach: an item takes less time in them than in the small steps
        between two looks at the clock.
        """
        start = self.clock()
        with watch.stage(step):
            yield
        if learn:
            self._learn((step, items == 1), (self.clock() - start) / items)

    def expected(self, step: Stage, items: int = 1) -> float:
        """Seconds that the step will hardly exceed; 0 if it was never seen."""
        known = self._known.get((step, items == 1))
        mean, deviation = known or self._known.get((step, items != 1), (0.0, 0.0))
        if known is None and items > 1:  # several take less each than one alone did
            deviation = 0.0
        return items * (mean + _DEVIATIONS * deviation)

    def forget(self) -> None:
        """Begin anew: what first runs took is no pace."""
        with self._lock:
            self._known.clear()
            self._once.clear()

    def fade(self, step: Stage) -> None:
        """Believe an estimate a little less: one slow spell must not refuse the step for ever."""
        with self._lock:
            for kind in {(step, True), (step, False)} & self._known.keys():
                mean, deviation = self._known[kind]
                self._known[kind] = mean * _FADE, deviation * _FADE

    def _learn(self, kind: _Kind, seconds: float) -> None:
        with self._lock:
            is_new, is_second = kind not in self._known, kind in self._once
            (self._once.add if is_new else self._once.discard)(kind)
            # A first run allocates: a faster second one counts alone.
            if is_new or (is_second and seconds < self._known[kind][0]):
                self._known[kind] = seconds, seconds / 2
                return
            mean, deviation = self._known[kind]
            if mean > 0:
                seconds = min(seconds, _MOST_AT_ONCE * (mean + _DEVIATIONS * deviation))
            gap = seconds - mean
            deviation += _NEW * (abs(gap) - deviation)
            self._known[kind] = mean + _NEW * gap, deviation


class Deadline:
    """A moment on the clock of a pace, or none."""

    def __init__(self, pace: Pace, end: float | None) -> None:
        """`end` is a moment of `pace.clock`."""
        self.pace = pace
        self._last = end

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._last is not None

    def fits(self, **steps: int) -> bool:
        """Whether so many items of these steps end in time, as far as their pace is known."""
        if self._last is None:
            return True
        wanted: dict[Stage, int] = {step: items for step, items in steps.items() if items}  # type: ignore[misc]
        needed = sum(self.pace.expected(step, items) for step, items in wanted.items())
        left = self._last - self.pace.clock()
        # Without a pace yet, one step may be late; a time that is over is over.
        if left > 0 and needed <= left:
            return True
        if left > 0:
            for step in wanted:
                self.pace.fade(step)
        return False


def check_deadline(deadline_ms: float | None) -> None:
    """Raise InputError unless it is a positive number of milliseconds, or None."""
    if deadline_ms is None:
        return
    check_number(deadline_ms, "deadline_ms", above=0)


@dataclass(frozen=True)
class DeadlineAnswers:
    """What the MLLM said before the time was over, or the order was settled."""

    mu: NDArray[np.float64]  # [n] of the first n candidates
    partial: bool  # the deadline left some out
    settled: bool  # `settled` left some out


class ImageTokens:
    """Vision tokens of images; one that was seen before is found without decoding it again.

    Images are known by their place: a sequence may make a new object at each look.
    """

    def __init__(self, scorer: Scorer, images: Sequence[ImageSource]) -> None:
        self._scorer, self._images = scorer, images
        self._keys: dict[int, Key] = {}

    def of(
        self, places: Sequence[int], deadline: Deadline, watch: StageWatch, *, score: int = 0
    ) -> NDArray[Any] | None:
        """Return the tokens [n,levels,T,H] of some images; None if there is no time for them.

        `score` pairs are to be scored with them before the deadline, too.

        Raises
        ------
        InputError
            An image cannot be used; it is named.
        """
        scorer, pace = self._scorer, deadline.pace
        tokens_of = self._remembered(places)
        unknown = [place for place in dict.fromkeys(places) if place not in tokens_of]
        if unknown:
            pixels = {}
            for count, place in enumerate(unknown):
                # One at a time: a large image among them is late by itself alone.
                if not deadline.fits(decode=len(unknown) - count, score=score):
                    return None
                with pace.timed("decode", watch):
                    pixels[place] = self._decoded(place)
            tokens_of |= self._remembered(unknown)
        new = [place for place in unknown if place not in tokens_of]
        if new:
            if not deadline.fits(vision=len(new), score=score):
                return None
            with pace.timed("vision", watch, len(new), learn=len(new) <= IN_TIME_BATCH):
                tokens = scorer.vision.of([pixels[place] for place in new])
            tokens_of |= dict(zip(new, tokens, strict=True))
        return np.stack([tokens_of[place] for place in places])

    def _remembered(self, places: Sequence[int]) -> dict[int, NDArray[Any]]:
        tokens_of = {}
        for place in places:
            key = self._key(place)
            tokens = None if key is None else self._scorer.remembered(key)
            if tokens is not None:
                tokens_of[place] = tokens
        return tokens_of

    def _key(self, place: int) -> Key | None:
        """Return the hash of an image's pixels, if they, or its file, were seen before."""
        if place not in self._keys and isinstance(data := self._images[place], bytes):
            key = self._scorer.key_of_file(data)
            if key is not None:
                self._keys[place] = key
        return self._keys.get(place)

    def name(self, place: int) -> str:
        """Return what messages call an image."""
        return called(self._images[place], f"candidates[{place}]")

    def _decoded(self, place: int) -> Pixels:
        image, how = self._images[place], self._scorer.part.preprocessing
        pixels = prepare(image, how, name=source_name(image, f"candidates[{place}]")).pixels
        self._keys[place] = key = content_key(pixels)
        if isinstance(image, bytes):
            self._scorer.remember_file(image, key)
        return pixels


@at_once
def score_in_time(
    scorer: Scorer,
    query: Pixels,
    tokens: ImageTokens,
    places: Sequence[int],
    deadline: Deadline,
    watch: StageWatch,
    *,
    name: str = "the query",
    settled: Callable[[NDArray[np.float64]], bool] | None = None,
) -> Steps[DeadlineAnswers]:
    """Ask for mu of a query's candidates in the order of `places`.

    Parameters
    ----------
    scorer, query
        The MLLM, and the query's pixels [3,H,W].
    tokens, places
        Vision tokens of the candidates, and which of them they are, best first.
    deadline
        A step that would end after it is not begun; a step whose pace is unknown is.
    watch
        Counts the seconds of decode, vision, prefill and score.
    name
        What messages call the query.
    settled
        Asked after each batch, given mu so far, whether the others may be left out.

    Raises
    ------
    InputError
        An image cannot be used, or an answer is no number (the images are named).
    """
    few = IN_TIME_BATCH if deadline.is_set or settled is not None else None
    parts = list(scorer.batches(len(places), few))
    prefix = _prefix(scorer, query, deadline, watch) if parts else None
    mu = np.empty(0, np.float64)
    for part in parts:
        if settled is not None and len(mu) and settled(mu):
            return DeadlineAnswers(mu, partial=False, settled=True)
        some = places[part]
        values = None if prefix is None else _in_time(tokens, some, deadline, watch)
        if prefix is not None and values is None and not len(mu):  # one is better than none
            some = some[:1]
            values = _in_time(tokens, some, deadline, watch)
        if prefix is None or values is None:
            return DeadlineAnswers(mu, partial=True, settled=False)
        with deadline.pace.timed("score", watch, len(some), learn=len(some) <= IN_TIME_BATCH):
            logits = yield PairBatch(scorer, prefix, values)
        assert logits is not None  # noqa: S101  whoever runs the steps answers a batch
        bad = first_no_number(logits)
        if bad is not None:
            candidate = tokens.name(some[bad[0]]), values[bad[0]]
            raise no_answer(scorer, (name, scorer.vision.of([query])[0]), candidate)
        mu = np.concatenate([mu, scorer.mu(logits)])
        if len(some) < part.stop - part.start:
            return DeadlineAnswers(mu, partial=True, settled=False)
    return DeadlineAnswers(mu, partial=False, settled=False)


def _in_time(
    tokens: ImageTokens, some: Sequence[int], deadline: Deadline, watch: StageWatch
) -> NDArray[Any] | None:
    """Return the tokens of some candidates; None if there is no time for them and their pairs."""
    values = tokens.of(some, deadline, watch, score=len(some))
    return values if values is not None and deadline.fits(score=len(some)) else None


def _prefix(scorer: Scorer, query: Pixels, deadline: Deadline, watch: StageWatch) -> Prefix | None:
    """Return the query's prefix; None if there is no time for it and one pair."""
    key = content_key(query)
    prefix = scorer.known_prefix(key)
    if prefix is not None:
        return prefix
    pace = deadline.pace
    tokens = scorer.remembered(key)
    if not deadline.fits(vision=int(tokens is None), prefill=1, score=1):
        return None
    if tokens is None:
        with pace.timed("vision", watch):
            tokens = scorer.vision.of([query])[0]
        if not deadline.fits(prefill=1, score=1):
            return None
    with pace.timed("prefill", watch):
        return scorer.new_prefix(key, tokens)
