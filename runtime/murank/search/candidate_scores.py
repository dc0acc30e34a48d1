"""What the MLLM says about the candidates of queries, one query at a time or several."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.deadline import (
    IN_TIME_BATCH,
    Deadline,
    DeadlineAnswers,
    ImageTokens,
    Pace,
    score_in_time,
)
from murank.engine.no_answer import first_no_number, no_answer
from murank.engine.scorer import Pixels, Scorer
from murank.engine.stopwatch import StageWatch
from murank.images import ImageSource, prepare
from murank.rerank.methods import Progress
from murank.search.early_stop import Settling
from murank.search.query import Retrieved
from murank.search.search_settings import SearchSettings

_WARM = 8  # images in one step, as many as one run of the vision tower takes
_PRACTICE = 4  # steps, and queries: the first ones allocate
_MOST_PRACTICE = 16  # queries: what is known from few is doubted, and less time is used
_SECONDS = 1.0  # of practice; a slow engine keeps no short deadline anyway
NOTHING = DeadlineAnswers(np.empty(0, np.float64), partial=False, settled=False)


class Scoring:
    """The MLLM beside the images of a gallery."""

    def __init__(
        self, scorer: Scorer, images: Sequence[ImageSource], settings: SearchSettings, pace: Pace
    ) -> None:
        self._scorer, self._images, self._settings = scorer, images, settings
        self._tokens, self._pace = ImageTokens(scorer, images), pace
        self.preprocessing = scorer.part.preprocessing

    def of_many(
        self,
        queries: Sequence[Pixels],
        retrieved: Sequence[Retrieved],
        watch: StageWatch,
        *,
        names: Sequence[str],
        end: float | None = None,
    ) -> list[DeadlineAnswers]:
        """Ask about the candidates of queries until `end` on the clock, if there is one.

        Without it, as many queries in a run of the decoder as fit.
        """
        group = self._scorer.queries_at_once(self._settings.num_candidates)
        alone = group == 1 or len(queries) == 1 or self._settings.settle_top is not None
        if alone or end is not None:
            return self._one_by_one(queries, retrieved, watch, names, end)
        answers: list[DeadlineAnswers] = []
        for start in range(0, len(queries), group):
            part = slice(start, start + group)
            mu = self._score_group(queries[part], retrieved[part], watch, names[part])
            answers += [DeadlineAnswers(row, partial=False, settled=False) for row in mu]
        return answers

    def _one_by_one(
        self,
        queries: Sequence[Pixels],
        retrieved: Sequence[Retrieved],
        watch: StageWatch,
        names: Sequence[str],
        end: float | None,
    ) -> list[DeadlineAnswers]:
        """Each may use an equal share of the time that is left when its turn comes."""
        pace, answers = self._pace, []
        # What follows, for each query, when all have been asked about.
        after = len(queries) * (pace.expected("fuse") + pace.expected("rerank"))
        for number, (query, one) in enumerate(zip(queries, retrieved, strict=True)):
            moment = None
            if end is not None:
                now = pace.clock()
                moment = now + (end - after - now) / (len(queries) - number)
            answers.append(
                score_in_time(
                    self._scorer, query, self._tokens, one.candidates.tolist(),
                    Deadline(pace, moment), watch, name=names[number],
                    settled=self._settling(one),
                )
            )  # fmt: skip
        return answers

    def warm(self, places: Sequence[int], progress: Progress | None) -> None:
        """Compute vision tokens, and learn how long scoring takes."""
        wrong = [place for place in places if not 0 <= place < len(self._images)]
        if wrong:
            raise InputError(
                f"there is no gallery image {wrong[0]}: they are 0..{len(self._images) - 1}"
            )
        free, watch = Deadline(self._pace, None), StageWatch()
        done = 0
        while done < len(places):
            # At first as many as a deadline's steps have, from which their pace is learnt.
            few = done < _PRACTICE * IN_TIME_BATCH
            some = places[done : done + (IN_TIME_BATCH if few else _WARM)]
            self._tokens.of(some, free, watch)
            done += len(some)
            if progress is not None:
                progress("vision tokens", done, len(places))
        if len(places):
            self._practise(places, watch)

    def _practise(self, places: Sequence[int], watch: StageWatch) -> None:
        """Score gallery images with others, as a deadline would have it."""
        never, start = Deadline(self._pace, float("inf")), self._pace.clock()
        for number in range(_MOST_PRACTICE):
            if number >= _PRACTICE and self._pace.clock() - start > _SECONDS:
                break
            place = places[number % len(places)]
            query = prepare(self._images[place], self.preprocessing).pixels
            score_in_time(
                self._scorer, query, self._tokens, places[:IN_TIME_BATCH], never, watch,
                name=self._tokens.name(place),
            )  # fmt: skip

    def _score_group(
        self,
        queries: Sequence[Pixels],
        retrieved: Sequence[Retrieved],
        watch: StageWatch,
        names: Sequence[str],
    ) -> NDArray[np.float64]:
        """Mu [Q,K], in one run."""
        scorer, pace = self._scorer, self._pace
        rows = np.stack([one.candidates for one in retrieved])
        with pace.timed("vision", watch, len(queries), learn=False):
            seen = scorer.vision.of(queries)
        with pace.timed("prefill", watch, len(queries), learn=False):
            prefix = scorer.decoder.prefill(seen)
        tokens = self._tokens.of(rows.ravel().tolist(), Deadline(pace, None), watch)
        assert tokens is not None  # noqa: S101  without a deadline there is always time
        with pace.timed("score", watch, rows.size, learn=False):
            asked = tokens.reshape(*rows.shape, *tokens.shape[1:])
            logits = scorer.decoder.logits(prefix, asked)
        bad = first_no_number(logits)
        if bad is not None:
            candidate = self._tokens.name(rows[bad]), asked[bad]
            raise no_answer(scorer, (names[bad[0]], seen[bad[0]]), candidate)
        return scorer.mu(logits)

    def _settling(self, retrieved: Retrieved) -> Settling | None:
        first, k = self._settings.settle_top, self._settings.num_candidates
        if first is None:
            return None
        distances, _ = retrieved.query.nearest(min(k + first, len(self._images)))
        return Settling(distances[:k], distances[k:], first=first, alpha=self._settings.alpha)
