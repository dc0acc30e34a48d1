"""How good a ranking is: mAP, CMC and mINP under the protocols of the field."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F64, I64
from murank_kernels.checks import validate
from murank_kernels.evaluation.drop_rule import Drop, DropRule
from murank_kernels.evaluation.gallery_shot import single_gallery_shot
from murank_kernels.evaluation.match_places import MatchPlaces, asked_of, match_places
from murank_kernels.evaluation.person_ranks import person_rank
from murank_kernels.evaluation.protocols import PROTOCOLS, Protocol
from murank_kernels.tiles.distance_blocks import DistanceBlocks

Junk = Literal["keep", "drop"]
JUNK_PID = -1
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
_PAIRS_AT_ONCE = 1 << 22  # of a rule that may drop anyone: so many are looked at one by one


@dataclass(frozen=True)
class RankEvaluation:
    """Figures of merit in [0,1], larger is better."""

    cmc: F64  # [min(max_rank, G)] cmc[r-1] = share of queries with a match among the first r
    mAP: float  # mean average precision  # noqa: N815  the field's own name
    mINP: float  # mean inverse negative penalty: n matches / place of the last  # noqa: N815
    all_AP: F64  # [Q] average precision, NaN for a query without a match  # noqa: N815
    all_INP: F64  # [Q] inverse negative penalty, NaN likewise  # noqa: N815
    num_valid: int  # queries with at least one match
    num_emptied: int = 0  # queries whose person is in the gallery, but every match was dropped


class RankEvaluator:
    """Evaluates distances that come some query rows at a time, in any order."""

    def __init__(
        self,
        q_pids: ArrayLike,
        g_pids: ArrayLike,
        q_camids: ArrayLike | None = None,
        g_camids: ArrayLike | None = None,
        *,
        max_rank: int = 50,
        protocol: Protocol = "market1501",
        num_repeats: int = 10,
        seed: int = 0,
        junk: Junk | None = None,
        drop: Drop = "same-camera",
        camera_groups: Sequence[Sequence[int]] = (),
        q_clothes: ArrayLike | None = None,
        g_clothes: ArrayLike | None = None,
    ) -> None:
        """Check the labels; parameters as in `evaluate_rank`."""
        self._q_pids = validate.as_labels(q_pids, "q_pids", None)
        self._g_pids = validate.as_labels(g_pids, "g_pids", None)
        if not len(self._q_pids) or not len(self._g_pids):
            raise InvalidInputError("q_pids and g_pids must not be empty")
        camids, clothes = (
            (self._labels(f"q_{name}", query), self._labels(f"g_{name}", gallery))
            for name, query, gallery in (
                ("camids", q_camids, g_camids),
                ("clothes", q_clothes, g_clothes),
            )
        )
        pids = (self._q_pids, self._g_pids)
        self._rule = DropRule.of(drop, pids, camids, clothes, camera_groups)
        if protocol not in PROTOCOLS:
            names = ", ".join(repr(name) for name in PROTOCOLS)
            raise InvalidInputError(f"protocol must be {names}, got {protocol!r}")
        self._protocol = protocol
        self._num_repeats = validate.as_count(num_repeats, "num_repeats")
        self._seed = validate.as_count(seed, "seed", least=0)
        self._kept = self._without_junk(junk)
        self._items = np.arange(len(self._g_pids)) if self._kept is None else self._kept
        size = len(self._items if junk == "drop" else self._g_pids)
        self._max_rank = min(validate.as_count(max_rank, "max_rank"), size)
        # Gallery items by person: the items of one pid are a range of `_order`.
        self._pids = self._g_pids[self._items]
        self._order = np.argsort(self._pids, kind="stable")
        self._sorted_pids = self._pids[self._order]
        self._ap = np.full(len(self._q_pids), np.nan)
        self._inp = np.full(len(self._q_pids), np.nan)
        self._cmc = np.full((len(self._q_pids), self._max_rank), np.nan)
        self._seen = np.zeros(len(self._q_pids), bool)

    def _labels(self, name: str, labels: ArrayLike | None) -> I64 | None:
        pids = self._q_pids if name.startswith("q_") else self._g_pids
        return None if labels is None else validate.as_labels(labels, name, len(pids))

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
        step = len(rows)
        if self._rule.of_anyone:
            step = max(1, _PAIRS_AT_ONCE // rows.shape[1])
        for start in range(0, len(rows), step):
            self._take(first_query + start, rows[start : start + step], find_places)
        self._seen[first_query:stop] = True

    def _take(self, first_query: int, rows: Any, find_places: Callable[..., MatchPlaces]) -> None:
        if self._kept is not None:
            rows = np.ascontiguousarray(rows[:, self._kept])
        queries = np.arange(first_query, first_query + len(rows))
        starts, stops = self._of_person(queries)
        asked = asked_of(self._rule, queries, self._items, self._order, starts, stops)
        found = find_places(rows, asked)
        for r, query in enumerate(queries.tolist()):
            places = found.places[found.indptr[r] : found.indptr[r + 1]]
            if len(places) and self._counted[query]:
                self._score(query, places)
                if self._protocol in ("cuhk03", "sysu"):
                    matches = found.matches[found.indptr[r] : found.indptr[r + 1]]
                    dropped = asked.dropped[asked.drop_indptr[r] : asked.drop_indptr[r + 1]]
                    self._cmc[query] = self._own_cmc(query, rows[r], matches, dropped)

    def _of_person(self, queries: I64) -> tuple[I64, I64]:
        """Return where the items of the person of each query start and stop in `_order`."""
        pids = self._q_pids[queries]
        starts, stops = (np.searchsorted(self._sorted_pids, pids, side) for side in _SIDES)
        return starts, stops

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
            raise InvalidInputError(self._why_nothing())
        counted = int(self._counted.sum()) if self._protocol == "trapezoid" else num_valid
        return RankEvaluation(
            cmc=self._cmc[valid].sum(axis=0) / counted,
            mAP=float(self._ap[valid].sum() / counted),
            mINP=float(self._inp[valid].sum() / counted),
            all_AP=self._ap.copy(),
            all_INP=self._inp.copy(),
            num_valid=num_valid,
            num_emptied=self._num_emptied(),
        )

    def _num_emptied(self) -> int:
        starts, stops = self._of_person(np.arange(len(self._q_pids)))
        return int((self._counted & (starts < stops) & np.isnan(self._ap)).sum())

    def _why_nothing(self) -> str:
        emptied = self._num_emptied()
        if not emptied:
            return "no query has a match: no gallery item has a query's pid; check q_pids, g_pids"
        if self._rule.name == "same-camera":
            return (
                "no query has a match: no gallery item has a query's pid under another camera; "
                "check q_pids, g_pids, q_camids and g_camids, or pass another drop"
            )
        return (
            f"no query has a match: {self._rule.words} drops them all; check the labels, or pass "
            "another drop"
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

    def _own_cmc(self, query: int, row: NDArray[Any], matches: I64, dropped: I64) -> F64:
        """CMC [max_rank] of one query, where it is not by the place of the first match."""
        if self._protocol == "sysu":
            rank = person_rank(row, int(matches[0]), dropped, self._pids)
            hits: F64 = (np.arange(1, self._max_rank + 1) >= rank).astype(np.float64)
            return hits
        order = self._order
        if self._rule.of_anyone:
            kept = np.ones(len(order), bool)
            kept[dropped] = False
            order = order[kept[order]]
        return single_gallery_shot(
            row, matches, order, self._pids[order], int(self._q_pids[query]),
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
    q_camids: ArrayLike | None = None,
    g_camids: ArrayLike | None = None,
    max_rank: int = 50,
    *,
    protocol: Protocol = "market1501",
    num_repeats: int = 10,
    seed: int = 0,
    junk: Junk | None = None,
    drop: Drop = "same-camera",
    camera_groups: Sequence[Sequence[int]] = (),
    q_clothes: ArrayLike | None = None,
    g_clothes: ArrayLike | None = None,
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
        Camera ids. None: not known, where `drop` does not look at them.
    max_rank : int
        Length of the CMC curve; clipped to G.
    protocol : str
        "market1501": means over the queries that have a match. "cuhk03": the same, but the CMC is
        single-gallery-shot, the mean over `num_repeats` draws of one gallery item a person.
        "trapezoid": AP by the trapezoid rule of Market-1501's first evaluation code; items with
        pid -1 are dropped and means are over all queries. "sysu": as "market1501", but the CMC
        counts people, each by its first image, as the evaluation code of SYSU-MM01 does.
    num_repeats, seed : int
        Draws of "cuhk03" and their seed; a query's draws depend on nothing else.
    junk : str
        What becomes of pid -1. "drop": such queries and gallery items are left out, as if they had
        never been there (Market-1501's rule). "keep": -1 is a person like others. None: the
        same, and a UserWarning tells how many there are.
    drop : str, [Q,G] bool, or callable
        What is dropped from a query's ranking before anything is counted. A query that is left
        without a match does not count (`num_emptied`).
        "same-camera": items of the query's pid and camera (the field's rule).
        "same-clothes": these, and items of its pid in its clothes (clothes-changing, LTCC).
        "other-clothes": these, and items of its pid in other clothes (same-clothes setting, LTCC).
        "whole-camera": items by the query's camera, whoever they show (SYSU-MM01, with
        `camera_groups`; `separate_camera_set` of open-reid).
        "none": nothing.
        A mask: where it is true, and nothing else. A callable makes it for queries [b] (indices)
        as [b,G], some at a time.
    camera_groups : sequence of sequences of camera ids
        Cameras that see one place count as one: [(2, 3)] in SYSU-MM01.
    q_clothes, g_clothes : [Q], [G] int
        What a person wears; an id tells the outfits of one person apart. Below 0: not known, and
        both rules of clothes drop such pairs of one person.

    Returns
    -------
    RankEvaluation

    Raises
    ------
    InvalidInputError
        Shapes that do not fit, NaN distances, no query with a match.

    Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015; Li et al.,
    "DeepReID", CVPR 2014 (cuhk03); Ye et al., TPAMI 2021 (mINP); Wu et al., "RGB-Infrared
    Cross-Modality Person Re-Identification", ICCV 2017 (sysu).
    """
    evaluator = RankEvaluator(
        q_pids, g_pids, q_camids, g_camids,
        max_rank=max_rank, protocol=protocol, num_repeats=num_repeats, seed=seed, junk=junk,
        drop=drop, camera_groups=camera_groups, q_clothes=q_clothes, g_clothes=g_clothes,
    )  # fmt: skip
    blocks: Iterable[tuple[int, Any]]
    blocks = distmat.where_made() if isinstance(distmat, DistanceBlocks) else [(0, distmat)]
    for first_query, distances in blocks:
        evaluator.update(first_query, distances)
        del distances  # before the next block is made
    return evaluator.result()
