"""How good a ranking is: mAP, CMC and mINP under the protocols of the field."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F64, I64
from murank_kernels.checks import validate
from murank_kernels.evaluation.gallery_shot import single_gallery_shot
from murank_kernels.evaluation.match_places import MatchPlaces, match_places
from murank_kernels.tiles.distance_blocks import DistanceBlocks

Protocol = Literal["market1501", "cuhk03", "trapezoid"]
Junk = Literal["keep", "drop"]
JUNK_PID = -1


@dataclass(frozen=True)
class RankEvaluation:
    """Figures of merit in [0,1], larger is better."""

    cmc: F64  # [min(max_rank, G)] cmc[r-1] = share of queries with a match among the first r
    mAP: float  # mean average precision  # noqa: N815  the field's own name
    mINP: float  # mean inverse negative penalty: n matches / place of the last  # noqa: N815
    all_AP: F64  # [Q] average precision, NaN for a query without a match  # noqa: N815
    all_INP: F64  # [Q] inverse negative penalty, NaN likewise  # noqa: N815
    num_valid: int  # queries with at least one match


class RankEvaluator:
    """Evaluates distances that come some query rows at a time, in any order."""

    def __init__(
        self,
        q_pids: ArrayLike,
        g_pids: ArrayLike,
        q_camids: ArrayLike,
        g_camids: ArrayLike,
        *,
        max_rank: int = 50,
        protocol: Protocol = "market1501",
        num_repeats: int = 10,
        seed: int = 0,
        junk: Junk | None = None,
    ) -> None:
        """Check the labels; parameters as in `evaluate_rank`."""
        self._q_pids = validate.as_labels(q_pids, "q_pids", None)
        self._g_pids = validate.as_labels(g_pids, "g_pids", None)
        self._q_camids = validate.as_labels(q_camids, "q_camids", len(self._q_pids))
        self._g_camids = validate.as_labels(g_camids, "g_camids", len(self._g_pids))
        if not len(self._q_pids) or not len(self._g_pids):
            raise InvalidInputError("q_pids and g_pids must not be empty")
        if protocol not in ("market1501", "cuhk03", "trapezoid"):
            raise InvalidInputError(
                f"protocol must be 'market1501', 'cuhk03' or 'trapezoid', got {protocol!r}"
            )
        self._protocol = protocol
        self._num_repeats = validate.as_count(num_repeats, "num_repeats")
        self._seed = validate.as_count(seed, "seed", least=0)
        self._kept = self._without_junk(junk)
        size = len(self._g_pids) if self._kept is None or junk != "drop" else len(self._kept)
        self._max_rank = min(validate.as_count(max_rank, "max_rank"), size)
        # Gallery items by person: the items of one pid are a range of `_order`.
        pids = self._g_pids if self._kept is None else self._g_pids[self._kept]
        self._cameras = self._g_camids if self._kept is None else self._g_camids[self._kept]
        self._order = np.argsort(pids, kind="stable")
        self._sorted_pids = pids[self._order]
        self._ap = np.full(len(self._q_pids), np.nan)
        self._inp = np.full(len(self._q_pids), np.nan)
        self._cmc = np.full((len(self._q_pids), self._max_rank), np.nan)
        self._seen = np.zeros(len(self._q_pids), bool)

    def _without_junk(self, junk: Junk | None) -> I64 | None:
        """Return the gallery items that count, None: all; `_counted` [Q] are the queries."""
        if junk not in (None, "keep", "drop"):
            raise InvalidInputError(f"junk must be 'keep' or 'drop', got {junk!r}")
        is_junk = self._g_pids == JUNK_PID
        queries = self._q_pids == JUNK_PID
        self._counted = ~queries if junk == "drop" else np.ones(len(queries), bool)
        if junk is None:
            _warn_of_junk(int(queries.sum()), int(is_junk.sum()), self._protocol)
        if junk != "drop" and self._protocol != "trapezoid":
            return None
        if is_junk.all():
            raise InvalidInputError("no query has a match: every one of g_pids is -1")
        return np.flatnonzero(~is_junk)

    def update(self, first_query: int, distances: Any) -> None:
        """Take the distances [b,G] of the queries from `first_query` on, NumPy's or a GPU's.

        Raises InvalidInputError for rows outside 0..Q-1 or given before, a wrong width or NaN.
        """
        first_query = validate.as_count(first_query, "first_query", least=0)
        rows, find_places = self._where_they_are(distances)
        stop = first_query + len(rows)
        if rows.shape[1] != len(self._g_pids) or stop > len(self._q_pids):
            raise InvalidInputError(
                f"distmat must have shape [{len(self._q_pids)}, {len(self._g_pids)}] by the "
                f"labels, got rows {first_query}..{stop - 1} of width {rows.shape[1]}"
            )
        if self._seen[first_query:stop].any():
            raise InvalidInputError(f"distmat rows {first_query}..{stop - 1} were given before")
        if self._kept is not None:
            rows = np.ascontiguousarray(rows[:, self._kept])
        starts = np.searchsorted(self._sorted_pids, self._q_pids[first_query:stop], "left")
        stops = np.searchsorted(self._sorted_pids, self._q_pids[first_query:stop], "right")
        found = find_places(
            rows, self._order, starts, stops, self._cameras, self._q_camids[first_query:stop]
        )
        self._seen[first_query:stop] = True
        for r, query in enumerate(range(first_query, stop)):
            places = found.places[found.indptr[r] : found.indptr[r + 1]]
            if len(places) and self._counted[query]:
                self._score(query, places)
                if self._protocol == "cuhk03":
                    matches = found.matches[found.indptr[r] : found.indptr[r + 1]]
                    self._cmc[query] = self._gallery_shots(query, rows[r], matches)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that hold what is known so far, by name; they are no copies.

        An evaluator of the same labels and protocol goes on from what is put into its own.
        """
        return {"ap": self._ap, "inp": self._inp, "cmc": self._cmc, "seen": self._seen}

    def result(self) -> RankEvaluation:
        """Means over the valid queries ("trapezoid": over all).

        Raises InvalidInputError if a query was never seen or none has a match.
        """
        if not self._seen.all():
            raise InvalidInputError(
                f"distmat rows are missing: {int((~self._seen).sum())} queries were never given"
            )
        valid = ~np.isnan(self._ap)
        num_valid = int(valid.sum())
        if num_valid == 0:
            raise InvalidInputError(
                "no query has a match: no gallery item has a query's pid under another camera; "
                "check q_pids, g_pids, q_camids and g_camids"
            )
        counted = int(self._counted.sum()) if self._protocol == "trapezoid" else num_valid
        return RankEvaluation(
            cmc=self._cmc[valid].sum(axis=0) / counted,
            mAP=float(self._ap[valid].sum() / counted),
            mINP=float(self._inp[valid].sum() / counted),
            all_AP=self._ap.copy(),
            all_INP=self._inp.copy(),
            num_valid=num_valid,
        )

    def _where_they_are(self, distances: Any) -> tuple[Any, Callable[..., MatchPlaces]]:
        """Return a matrix and what finds places in it: on a GPU, if the distances are there.

        The other protocols, and junk, want a look at rows themselves: those are copied to the host.
        """
        if validate.on_device(distances):
            from murank_kernels.cuda.prepare import to_host
            from murank_kernels.evaluation import device_places

            if (
                self._protocol == "market1501"
                and self._kept is None
                and device_places.is_float32_matrix(distances)
            ):
                return distances, device_places.match_places
            distances = to_host(distances)
        return validate.as_matrix(distances, "distmat"), match_places

    def _score(self, query: int, places: I64) -> None:
        """Figures of one query from its matches' places, 1-based and ascending."""
        hits = np.arange(1, len(places) + 1)
        precision = hits / places
        if self._protocol == "trapezoid":
            before = np.where(places > 1, (hits - 1) / np.maximum(places - 1, 1), 1.0)
            precision = (before + precision) / 2
        self._ap[query] = precision.mean()
        self._inp[query] = len(places) / places[-1]
        self._cmc[query] = np.arange(1, self._max_rank + 1) >= places[0]

    def _gallery_shots(self, query: int, row: NDArray[Any], matches: I64) -> F64:
        return single_gallery_shot(
            row, matches, self._order, self._sorted_pids, int(self._q_pids[query]),
            max_rank=self._max_rank, num_repeats=self._num_repeats,
            seed=(self._seed, int(self._counted[:query].sum())),
        )  # fmt: skip


def _warn_of_junk(num_query: int, num_gallery: int, protocol: Protocol) -> None:
    if protocol == "trapezoid":
        num_gallery = 0  # dropped anyway
    counts = (("query", "queries", num_query), ("gallery item", "gallery items", num_gallery))
    found = [f"{count} {one if count == 1 else many}" for one, many, count in counts if count]
    if found:
        warnings.warn(
            f"{' and '.join(found)} of pid -1 counted as a person: if that is junk, as in "
            "Market-1501, pass junk='drop', else junk='keep'",
            UserWarning,
            stacklevel=4,
        )


def evaluate_rank(
    distmat: ArrayLike | DistanceBlocks,
    q_pids: ArrayLike,
    g_pids: ArrayLike,
    q_camids: ArrayLike,
    g_camids: ArrayLike,
    max_rank: int = 50,
    *,
    protocol: Protocol = "market1501",
    num_repeats: int = 10,
    seed: int = 0,
    junk: Junk | None = None,
) -> RankEvaluation:
    """Evaluate a query x gallery distance matrix.

    Parameters
    ----------
    distmat : [Q,G] float, or DistanceBlocks
        Distances, small = same person; ties: lower gallery index first. Blocks are evaluated as
        they are made, so Q x G is never held. An array on a GPU is evaluated there.
    q_pids, g_pids : [Q], [G] int
        Person ids.
    q_camids, g_camids : [Q], [G] int
        Camera ids. Gallery items of the query's pid AND camera are dropped.
    max_rank : int
        Length of the CMC curve; clipped to G.
    protocol : str
        "market1501": means over the queries that have a match. "cuhk03": the same, but the CMC is
        single-gallery-shot, the mean over `num_repeats` draws of one gallery item a person.
        "trapezoid": AP by the trapezoid rule of Market-1501's first evaluation code; items with
        pid -1 are dropped and means are over all queries.
    num_repeats, seed : int
        Draws of "cuhk03" and their seed; a query's draws depend on nothing else.
    junk : str
        What becomes of pid -1. "drop": such queries and gallery items are left out, as if they had
        never been there (Market-1501's rule). "keep": -1 is a person like others. None: the
        same, and a UserWarning tells how many there are.

    Returns
    -------
    RankEvaluation

    Raises
    ------
    InvalidInputError
        Shapes that do not fit, NaN distances, no query with a match.

    Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015; Li et al.,
    "DeepReID", CVPR 2014 (cuhk03); Ye et al., TPAMI 2021 (mINP).
    """
    evaluator = RankEvaluator(
        q_pids, g_pids, q_camids, g_camids,
        max_rank=max_rank, protocol=protocol, num_repeats=num_repeats, seed=seed, junk=junk,
    )  # fmt: skip
    blocks: Iterable[tuple[int, Any]]
    blocks = distmat.where_made() if isinstance(distmat, DistanceBlocks) else [(0, distmat)]
    for first_query, distances in blocks:
        evaluator.update(first_query, distances)
        del distances  # before the next block is made
    return evaluator.result()
