"""The third stage, and the fourth: mu.npz and mu_swapped.npz, of the queries, of the gallery."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.crew.crew_protocol import Lost
from murank.engine.pair_orders import Order
from murank.jobs.asked_pairs import Pairs
from murank.jobs.desk import Desk
from murank.jobs.embed import keep
from murank.jobs.engine_work import CANDIDATE, QUERY
from murank.jobs.job_units import AskAnswer, AskUnit, OneOrder, OrderAnswer, Provenance
from murank.jobs.needs import mu_bytes
from murank.jobs.numbered_pairs import Flags, NumberedPairs
from murank.jobs.pair_skips import Skip, once_each
from murank.jobs.stage import Record, fingerprint
from murank.jobs.workspace import GALLERY_MU_FILES, MU_FILES, Workspace
from murank.journal.known_mu import KnownMu, pair_keys
from murank.rerank.mu import MuDistances, mean_mu

HALVES: Mapping[Order, tuple[OneOrder, ...]] = {
    "given": ("given",), "swapped": ("swapped",), "both": ("given", "swapped")
}  # fmt: skip

_QUERIES = 8  # of a unit, at most: what a killed run loses at most
_PAIRS = 80  # of a unit, about


@dataclass(frozen=True, eq=False)
class MuStage:
    """Which pairs are scored, and where their mu goes."""

    name: str  # in progress and timings
    rows: str  # what has candidates
    files: Mapping[str, str]  # by prompt order


QUERY_MU = MuStage("mu", "queries", MU_FILES)
GALLERY_MU = MuStage("gallery_mu", "gallery images", GALLERY_MU_FILES)


@dataclass(frozen=True)
class Scored:
    """Mu of the candidates."""

    mu: MuDistances
    skips: list[Skip]  # images that lack answers, each once
    records: dict[str, Record]  # by file name
    states: dict[str, str]  # "made", "resumed" or "reused"


def score(
    what: MuStage,
    pairs: Pairs,
    desk: Desk,
    workspace: Workspace,
    *,
    order: Order,
    features: str,
    rows: range | None = None,
) -> Scored:
    """Ask for mu of all pairs, in one prompt order or in both; known ones are not asked again.

    A pair that has no answer, as of an image that cannot be read, gets the neutral mu in that
    order. `features` is the fingerprint of the features that gave the candidates. With `rows`, of
    a share, only these are asked about and nothing is written.

    Raises
    ------
    InputError
        No pair has an answer, or more lack one than may. What was answered before stays.
    """
    desk.check_products()
    numbered = NumberedPairs.of(pairs, desk)
    wanted = np.ones(len(pairs.candidates), bool)
    if rows is not None:
        wanted[: rows.start] = wanted[rows.stop :] = False
    halves = {half: desk.journal.mu(desk.asks, half) for half in HALVES[order]}
    new = {half: numbered.new(known, wanted) for half, known in halves.items()}
    total = int(wanted.sum()) * pairs.candidates.shape[1]
    states = {
        what.files[half]: desk.announce(what.files[half], "pairs", total - int(flags.sum()), total)
        for half, flags in new.items()
    }
    workspace.check_room(mu_bytes(sum(int(flags.sum()) for flags in new.values()), total))
    watch = desk.skips.watch(numbered.num_images, in_order=False)
    watch.left_out(dict(enumerate(numbered.images_out)))
    while any(flags.any() for flags in new.values()):
        before = sum(int(flags.sum()) for flags in new.values())
        for unit, answer in _answers(what, numbered, new, desk):
            _take(unit, answer, numbered, desk)
            watch.left_out(dict(enumerate(numbered.images_out)))
        # Where a file is gone and another has the same content, that one is asked about.
        new = {half: numbered.new(known, wanted) for half, known in halves.items()}
        if sum(int(flags.sum()) for flags in new.values()) >= before and not numbered.moved():
            raise RuntimeError(f"{before} pairs were given to workers and did not come back")
    records: dict[str, Record] = {}
    computed, skips = [], []
    for half, known in halves.items():
        mu, lacking = numbered.settled(known, wanted)
        for skip in lacking:
            desk.skips.check_pair(skip.reason)
        _check_answered(mu, lacking, known, numbered, wanted)
        records[what.files[half]] = record = {
            "fingerprint": fingerprint(what.name, desk.asks, half, features),
            "features": features, "providers": desk.providers_of(desk.asks),
            "skipped": [list(skip) for skip in lacking],
        }  # fmt: skip
        if rows is None:
            arrays = {"probs": mu, "gallery_indices": pairs.candidates}
            keep(what.files[half], arrays, record, workspace)
        computed.append(mu)
        skips += lacking
    mu_of_both = computed[0] if len(computed) == 1 else mean_mu(*computed)
    found = MuDistances(mu_of_both, pairs.candidates)
    return Scored(found, once_each(skips, max), records, states)


def queries_of_unit(k: int) -> int:
    """Return how many rows of k candidates are asked about at once."""
    return max(1, min(_QUERIES, _PAIRS // k))


def _answers(
    what: MuStage, numbered: NumberedPairs, new: Mapping[OneOrder, Flags], desk: Desk
) -> Iterator[tuple[AskUnit, AskAnswer]]:
    """Ask about what is new, in units of a few rows that are always the same."""
    together = queries_of_unit(numbered.keys.shape[1])
    rows = np.flatnonzero(np.logical_or.reduce([flags.any(axis=1) for flags in new.values()]))
    total = sum(int(flags.sum()) for flags in new.values())
    units = (
        numbered.unit(list(group), new)
        for _, group in groupby(rows.tolist(), lambda row: row // together)
    )
    if not total:  # nobody need be started
        return
    show, done = desk.report.part(what.name, workers=desk.crew.size), 0
    for unit, answer in desk.crew.answers(units):
        done += sum(int(flags.sum()) for flags in unit.orders.values())
        yield unit, _lost(unit, answer) if isinstance(answer, Lost) else answer
        show("pairs", done, total)


def _lost(unit: AskUnit, lost: Lost) -> AskAnswer:
    reasons = dict.fromkeys(range(len(unit.pairs)), f"{QUERY} and {CANDIDATE}: {lost.reason}")
    nothing = np.full(len(unit.pairs), np.nan, np.float32)
    orders = {order: OrderAnswer(nothing, reasons) for order in unit.orders}
    return AskAnswer(orders, {}, {}, Provenance("", {}))


def _take(unit: AskUnit, answer: AskAnswer, numbered: NumberedPairs, desk: Desk) -> None:
    """Record what was answered; what was lost may be tried again by another run."""
    desk.tokens_looked_up += answer.seen[0]
    desk.tokens_computed += answer.seen[1]
    for place, reason in answer.unread.items():
        numbered.cannot_read(unit.digests[place], unit.paths[place], reason, desk)
    refused = {unit.digests[place]: reason for place, reason in answer.refused.items()}
    for digest, reason in refused.items():
        numbered.out[desk.journal.number(digest)] = reason
    numbers = np.array([desk.journal.number(digest) for digest in unit.digests], np.int64)
    for order, said in answer.orders.items():
        for place, reason in said.reasons.items():
            query, candidate = (unit.paths[image] for image in unit.pairs[place])
            desk.skips.check_pair(reason.replace(QUERY, query).replace(CANDIDATE, candidate))
        answered = ~np.isnan(said.mu)
        answered[list(said.reasons)] = True
        if not answer.made_by.device:
            keys = pair_keys(*numbers[unit.pairs].T)
            numbered.lost |= {int(keys[place]): why for place, why in said.reasons.items()}
        elif answered.any() or refused:
            places = np.flatnonzero(answered)
            desk.pairs_asked += len(places)
            desk.journal.record_mu(
                desk.made_by(desk.asks, answer.made_by), order, unit.digests,
                unit.pairs[places], said.mu[places],
                {i: said.reasons[p] for i, p in enumerate(places.tolist()) if p in said.reasons},
                refused,
            )  # fmt: skip


def _check_answered(
    mu: NDArray[np.float32],
    lacking: list[Skip],
    known: KnownMu,
    numbered: NumberedPairs,
    wanted: Flags,
) -> None:
    """Raise InputError if mu would say nothing."""
    found, _ = known.look_up(numbered.keys[wanted])
    if mu.size and wanted.any() and np.isnan(found).all():
        raise InputError(f"not one pair can be scored; the first: {lacking[0].reason}")
