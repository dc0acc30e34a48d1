"""The searcher: a gallery in memory, and one query after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.checks.text import shown
from murank.datasets.labels import Ids
from murank.engine.deadline import DeadlineAnswers, Pace, check_deadline
from murank.engine.engine import Engine
from murank.engine.stopwatch import StageWatch
from murank.images import ImageSource
from murank.images.arguments import as_array, called, check_images, check_whole, source_name
from murank.rerank.alignment import Alignment, AlignmentSource, Asked, Fitted, given_alignment
from murank.rerank.methods import Progress
from murank.search.candidate_scores import NOTHING, Scoring
from murank.search.fused_ranking import rank
from murank.search.gallery_features import embed_images
from murank.search.online_gallery import (
    OnlineGallery,
    check_camids,
    check_gallery,
    check_parameters,
)
from murank.search.query import QueryPixels, Retrieved, query_pixels
from murank.search.search_result import SearchResult
from murank.search.search_settings import SearchMethod, SearchSettings

_ANY = -(1 << 62)  # the places themselves are looked at later
_LARGEST_CAMID = 2**63 - 1

QueryCamids: TypeAlias = Sequence[int | None] | Ids


class Searcher:
    """Ranks a gallery for one query at a time. Calls from several threads are safe.

    The encoder ranks the whole gallery, the MLLM is asked about the nearest `candidates`, and mu
    is fused in. Without an MLLM in the engine the method works on the encoder's distances.

    Parameters
    ----------
    engine
        With an encoder. It is not copied: its caches are shared.
    features
        Of the gallery, [G,D], as `engine.embed` gives them.
    images
        The gallery's G images (paths, bytes of files, PIL images, RGB arrays, ...): opened when the
        MLLM is to see them for the first time, not before.
    candidates
        Gallery images a query that the MLLM is asked about, K; None: 20, or all of a smaller
        gallery.
    method
        "k-reciprocal", "ca-jaccard" (needs camids; among the nearest `shortlist`), "simple" (mu
        fused, no neighbours) or "none" (the encoder alone).
    parameters
        Of the method: k1, k2, lambda_value, ..., and alpha where there is an MLLM.
    camids
        Camera of each gallery image, [G], below 0 where unknown; with them features are aligned.
    align_cameras
        "auto" ("pairs" where two cameras have 50 gallery images), "pairs", "mean" or "off"; see
        `CameraAlignment`. Fitted on the gallery.
    align_dims
        Directions kept, "all", or "auto": with pairs a quarter, at least 128.
    alignment
        Instead of a fit on this gallery: a file that `murank align` wrote, or a CameraAlignment.
    shortlist
        Gallery images among which "ca-jaccard" looks; None: 500.
    settle_top
        Stop asking once the first so many ranks can no longer change, whatever the other
        candidates' mu. Exact; with "simple" only. Ranks behind these are then provisional.
    progress
        Called as (stage, done, total) while the gallery's neighbours are found.

    Raises
    ------
    InputError
        The engine has no encoder, something does not fit together, or there are more candidates
        than gallery images.
    """

    def __init__(
        self,
        engine: Engine,
        features: NDArray[np.floating[Any]],
        images: Sequence[ImageSource],
        *,
        candidates: int | None = None,
        method: SearchMethod = "k-reciprocal",
        parameters: Mapping[str, Any] | None = None,
        camids: Ids | None = None,
        align_cameras: Asked = "auto",
        align_dims: int | Literal["auto", "all"] = "auto",
        alignment: "AlignmentSource | None" = None,
        shortlist: int | None = None,
        settle_top: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._encoder = engine.need_encoder()
        check_images(images, "images")
        features = as_array(features, "the gallery's features")
        check_gallery(features, len(images), self._encoder.part.dim)
        camids = check_camids(camids, len(images))
        self.engine = engine
        self.settings = SearchSettings(
            method, candidates, parameters or {}, settle_top, len(images),
            engine.scorer is not None, camids is not None, shortlist,
        )  # fmt: skip
        self.asked_alignment = _asked(engine, camids, align_cameras, align_dims, alignment)
        asked = self.asked_alignment
        self._gallery = OnlineGallery(features, camids, asked, self.settings, progress)
        self._pace = Pace()
        self._scoring = None
        if engine.scorer is not None and self.settings.num_candidates:
            self._scoring = Scoring(engine.scorer, list(images), self.settings, self._pace)
            self._practise(features[0])

    @classmethod
    def from_images(
        cls,
        engine: Engine,
        images: Sequence[ImageSource],
        *,
        candidates: int | None = None,
        method: SearchMethod = "k-reciprocal",
        parameters: Mapping[str, Any] | None = None,
        camids: Ids | None = None,
        align_cameras: Asked = "auto",
        align_dims: int | Literal["auto", "all"] = "auto",
        alignment: "AlignmentSource | None" = None,
        shortlist: int | None = None,
        settle_top: int | None = None,
        progress: Progress | None = None,
    ) -> "Searcher":
        """Embed a gallery in blocks, then make its searcher; parameters are the constructor's.

        Raises
        ------
        InputError
            As the constructor raises it, or an image cannot be used; it is named.
        """
        encoder = engine.need_encoder()
        check_images(images, "images")
        camids = check_camids(camids, len(images))
        settings = SearchSettings(
            method, candidates, parameters or {}, settle_top, len(images),
            engine.scorer is not None, camids is not None, shortlist,
        )  # fmt: skip
        check_parameters(settings)
        _asked(engine, camids, align_cameras, align_dims, alignment)
        features = embed_images(encoder, images, progress=progress)
        return cls(
            engine, features, images, candidates=candidates, method=method, parameters=parameters,
            camids=camids, align_cameras=align_cameras, align_dims=align_dims, alignment=alignment,
            shortlist=shortlist, settle_top=settle_top, progress=progress,
        )  # fmt: skip

    @property
    def num_gallery(self) -> int:
        """Images in the gallery."""
        return self.settings.num_gallery

    @property
    def alignment(self) -> Fitted:
        """What was done to the features, and why no more."""
        return self._gallery.alignment

    def search(
        self,
        query: ImageSource,
        *,
        camid: int | None = None,
        top_k: int = 50,
        deadline_ms: float | None = None,
    ) -> SearchResult:
        """Rank the gallery for one query.

        Parameters
        ----------
        query
            A path, the bytes of a file, PIL image or uint8 RGB array [H,W,3]; decoded once. A
            ReadyImage serves only if encoder and MLLM want the same preprocessing.
        camid
            Its camera, as in the gallery's camids. None, or below 0: unknown.
        top_k
            Matches returned, at most.
        deadline_ms
            Milliseconds from this call on. The encoder's ranking is made in any case; then
            candidates are asked about a few at a time, best first, while another batch, fusion and
            re-ranking will probably end in time, by what they took lately. A candidate that was
            not seen keeps its encoder distance. Late by one step of scoring at most (images to
            vision tokens, prefill, or a batch). None: no limit.

        Raises
        ------
        InputError
            The query or a candidate cannot be used (it is named), or an argument cannot be.
        """
        start = self._pace.clock()
        check_deadline(deadline_ms)
        check_whole(top_k, "top_k")
        camid = _camera(camid, "camid")
        watch = StageWatch()
        with watch.stage("decode"):
            pixels = self._pixels(query, "query")
        with watch.stage("embed"):
            feature = self._encoder.features(pixels.encoder[None], [query])[0]
        with watch.stage("retrieve"):
            retrieved = Retrieved(self._gallery, feature, camid, self.settings.num_candidates)
        answers = NOTHING
        if self._scoring is not None and pixels.mllm is not None:
            end = None if deadline_ms is None else start + deadline_ms / 1000
            names = [called(query, "query")]
            (answers,) = self._scoring.of_many(
                [pixels.mllm], [retrieved], watch, names=names, end=end
            )
        return self._result(retrieved, answers, top_k, watch)

    def search_many(
        self,
        queries: Sequence[ImageSource],
        *,
        camids: QueryCamids | None = None,
        top_k: int = 50,
        deadline_ms: float | None = None,
    ) -> list[SearchResult]:
        """Rank the gallery for several queries: embedded together, several a run of the decoder.

        Each gets what `search` gives it (mu within 1e-5), and of the seconds an equal share.
        With `settle_top` or a deadline they are scored one by one.

        Parameters
        ----------
        queries, camids, top_k
            As `search` takes them, one of each a query.
        deadline_ms
            Milliseconds from this call on, for all queries together: each in turn may use an equal
            share of what is left, and what one does not need is there for those after it. Late as
            `search` may be, by one step.

        Raises
        ------
        InputError
            As `search` raises it.
        """
        start = self._pace.clock()
        check_deadline(deadline_ms)
        check_images(queries, "queries")
        known = _query_camids(camids, len(queries))
        if not len(queries):
            return []
        check_whole(top_k, "top_k")
        watch = StageWatch()
        with watch.stage("decode"):
            pixels = [self._pixels(one, f"queries[{i}]") for i, one in enumerate(queries)]
        with watch.stage("embed"):
            features = self._encoder.features(np.stack([one.encoder for one in pixels]), queries)
        with watch.stage("retrieve"):
            k = self.settings.num_candidates
            pairs = zip(features, known, strict=True)
            retrieved = [Retrieved(self._gallery, feature, camid, k) for feature, camid in pairs]
        answers = [NOTHING] * len(retrieved)
        if self._scoring is not None:
            seen = [one.mllm for one in pixels if one.mllm is not None]
            names = [called(one, f"queries[{i}]") for i, one in enumerate(queries)]
            end = None if deadline_ms is None else start + deadline_ms / 1000
            answers = self._scoring.of_many(seen, retrieved, watch, names=names, end=end)
        results = [
            self._result(one, given, top_k, watch)
            for one, given in zip(retrieved, answers, strict=True)
        ]
        share = {stage: seconds / len(queries) for stage, seconds in watch.seconds.items()}
        return [replace(result, seconds=share) for result in results]

    def warm(
        self, indices: Sequence[int] | None = None, *, progress: Progress | None = None
    ) -> None:
        """Compute vision tokens of gallery images now, and learn how long scoring takes.

        They stay as far as the engine's `vision_cache_mb` goes. Without MLLM nothing is done.

        Parameters
        ----------
        indices
            Of the gallery; None: all.
        progress
            Called as ("vision tokens", done, total).

        Raises
        ------
        InputError
            An image cannot be used, or there is no such index.
        """
        if self._scoring is not None:
            places = range(self.num_gallery) if indices is None else _places(indices)
            self._scoring.warm(places, progress)

    def _result(
        self, retrieved: Retrieved, answers: DeadlineAnswers, top_k: int, watch: StageWatch
    ) -> SearchResult:
        matches = rank(
            retrieved, answers.mu, self._pace, watch, top_k=min(top_k, self.num_gallery),
            is_reranked=self.settings.is_reranked,
        )  # fmt: skip
        return SearchResult(
            matches, len(answers.mu), self.settings.num_candidates, answers.partial,
            answers.settled, watch.seconds,
        )  # fmt: skip

    def _practise(self, feature: NDArray[Any]) -> None:
        """Fuse and re-rank once, so that the first deadline knows how long they take."""
        retrieved = Retrieved(self._gallery, feature, None, self.settings.num_candidates)
        undecided = DeadlineAnswers(
            np.full(len(retrieved.candidates), 0.5), partial=False, settled=False
        )
        self._result(retrieved, undecided, 1, StageWatch())

    def _pixels(self, query: ImageSource, name: str) -> QueryPixels:
        mllm = None if self._scoring is None else self._scoring.preprocessing
        encoder = self._encoder.part.preprocessing
        return query_pixels(query, encoder, mllm, name=source_name(query, name))


def _asked(
    engine: Engine,
    camids: Ids | None,
    level: Asked,
    dims: int | Literal["auto", "all"],
    source: "AlignmentSource | None",
) -> Alignment:
    """Return what is asked for; InputError if it does not suit this engine's features."""
    asked = Alignment(level, dims, None if source is None else given_alignment(source))
    dim = engine.need_encoder().part.dim
    asked.check(dim=dim, camids=camids, encoder_sha256=engine.encoder_sha256)
    return asked


def _query_camids(camids: QueryCamids | None, count: int) -> Sequence[int | None]:
    if camids is None:
        return [None] * count
    if not hasattr(camids, "__len__") or len(camids) != count:
        raise InputError(f"camids must be a list of one a query: {count}, got {shown(camids)}")
    return [_camera(camid, f"camids[{place}]") for place, camid in enumerate(camids)]


def _camera(camid: int | None, name: str) -> int | None:
    """Return a query's camera; None: it is unknown."""
    if camid is None:
        return None
    number = check_whole(camid, name, least=_ANY)
    if number > _LARGEST_CAMID:
        raise InputError(f"{name} must be at most {_LARGEST_CAMID}, got {shown(camid)}")
    return None if number < 0 else number


def _places(indices: Sequence[int]) -> list[int]:
    if not isinstance(indices, (Sequence, np.ndarray)) or isinstance(indices, (str, bytes)):
        raise InputError(f"indices must be a list of numbers, got {type(indices).__name__}")
    for place, index in enumerate(indices):
        check_whole(index, f"indices[{place}]", least=_ANY)
    return [int(index) for index in indices]
