"""What is measured: a searcher over a gallery, or the scorer alone of an engine without encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.bench.bench_settings import BenchSettings
from murank.bench.samples import TimedAnswer
from murank.bench.scenarios import Subject
from murank.bench.workload import Workload, gallery_features
from murank.engine.deadline import Deadline, ImageTokens, Pace, score_in_time
from murank.engine.engine import Engine
from murank.engine.scorer import Pixels
from murank.engine.stopwatch import Stage, StageWatch
from murank.images import prepare
from murank.search import Searcher, SearchResult

_TOP_K = 50


def subject_of(engine: Engine, workload: Workload, settings: BenchSettings) -> Subject:
    """Return what an engine has to offer: a whole search, or the scoring of pairs."""
    if engine.encoder is None:
        return ScorerSubject(engine, workload, settings)
    asked = engine.embed(list(workload.asked))
    features = gallery_features(asked, len(workload.pool), settings)
    return SearchSubject(engine, features, workload, settings)


class SearchSubject:
    """A searcher: from an image file to the ranked gallery."""

    def __init__(
        self,
        engine: Engine,
        features: NDArray[np.float32],
        workload: Workload,
        settings: BenchSettings,
    ) -> None:
        self._engine = engine
        self._pool = min(len(workload.pool), settings.gallery_size)
        self._searcher = Searcher(
            engine, features, workload.gallery(settings.gallery_size),
            candidates=settings.candidates, method=settings.method or "none",
            camids=workload.camids(settings.gallery_size), align_cameras=settings.align_cameras,
        )  # fmt: skip

    def ask(self, query: Path, deadline_ms: float | None) -> TimedAnswer:
        """Search for one image."""
        return _answer(self._searcher.search(query, top_k=_TOP_K, deadline_ms=deadline_ms))

    def ask_many(self, queries: Sequence[Path]) -> TimedAnswer:
        """Search for several together."""
        results = self._searcher.search_many(queries, top_k=_TOP_K)
        return sum_of([_answer(result) for result in results])

    def forget(self) -> None:
        """Clear the engine's caches."""
        self._engine.clear_cache()

    def warm(self) -> None:
        """See every image of the pool: the gallery has no others."""
        self._searcher.warm(range(self._pool))


class ScorerSubject:
    """The MLLM alone: a query against candidates drawn by chance from the pool."""

    def __init__(self, engine: Engine, workload: Workload, settings: BenchSettings) -> None:
        if engine.scorer is None:
            raise InputError("this engine has neither encoder nor MLLM loaded")
        self._engine, self._scorer = engine, engine.scorer
        self._tokens = ImageTokens(engine.scorer, list(workload.pool))
        self._pool, self._candidates = len(workload.pool), settings.candidates
        self._random = np.random.default_rng([settings.seed, 7])
        self._pace = Pace()

    def ask(self, query: Path, deadline_ms: float | None) -> TimedAnswer:
        """Score the candidates of one query."""
        pace = self._pace
        end = None if deadline_ms is None else pace.clock() + deadline_ms / 1e3
        watch = StageWatch()
        (pixels,) = self._pixels([query], watch)
        answers = score_in_time(
            self._scorer, pixels, self._tokens, self._draw(), Deadline(pace, end), watch
        )
        return TimedAnswer(watch.seconds, len(answers.mu), self._candidates)

    def ask_many(self, queries: Sequence[Path]) -> TimedAnswer:
        """Score the candidates of several queries, as many in a run of the decoder as fit."""
        group = self._scorer.queries_at_once(self._candidates)
        if group == 1:
            return sum_of([self.ask(query, None) for query in queries])
        parts = [queries[start : start + group] for start in range(0, len(queries), group)]
        return sum_of([self._ask_together(part) for part in parts])

    def _ask_together(self, queries: Sequence[Path]) -> TimedAnswer:
        scorer, watch = self._scorer, StageWatch()
        pixels = self._pixels(queries, watch)
        with watch.stage("vision"):
            seen = scorer.vision.of(pixels)
        with watch.stage("prefill"):
            prefix = scorer.decoder.prefill(seen)
        places = [place for _ in queries for place in self._draw()]
        tokens = self._tokens.of(places, Deadline(self._pace, None), watch)
        assert tokens is not None  # noqa: S101 - without a deadline there is always time
        with watch.stage("score"):
            scorer.decoder.logits(prefix, tokens.reshape(len(queries), -1, *tokens.shape[1:]))
        return TimedAnswer(watch.seconds, len(places), len(places))

    def forget(self) -> None:
        """Clear the engine's caches."""
        self._engine.clear_cache()

    def warm(self) -> None:
        """See every image of the pool."""
        self._tokens.of(range(self._pool), Deadline(self._pace, None), StageWatch())

    def _draw(self) -> list[int]:
        places: list[int] = self._random.permutation(self._pool)[: self._candidates].tolist()
        return places

    def _pixels(self, queries: Sequence[Path], watch: StageWatch) -> list[Pixels]:
        with watch.stage("decode"):
            return [prepare(query, self._scorer.part.preprocessing).pixels for query in queries]


def sum_of(answers: Sequence[TimedAnswer]) -> TimedAnswer:
    """Add up what the queries of a group took."""
    seconds: dict[Stage, float] = {}
    for answer in answers:
        for stage, spent in answer.stages.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    return TimedAnswer(
        seconds,
        sum(answer.scored for answer in answers),
        sum(answer.candidates for answer in answers),
    )


def _answer(result: SearchResult) -> TimedAnswer:
    return TimedAnswer(result.seconds, result.scored, result.candidates)
