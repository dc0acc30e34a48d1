"""Which candidates are matches and which do not count, by labels and an evaluator's arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.labels import JUNK_PID, NO_CLOTHES, Ids, Labels
from murank.rerank.drop_mask import DropMask
from murank.rerank.methods import kernel_errors
from murank_kernels.evaluation.drop_rule import DropRule, RuleName, looks_at

Bools = NDArray[np.bool_]
SAME_CAMERA: RuleName = "same-camera"  # what is dropped where nothing else is asked for
_AT_ONCE = 1 << 22  # pairs of one person


def why_not(labels: Labels, protocol: Mapping[str, Any], of: str = "the features have") -> str:
    """Say which labels the rule of a protocol lacks; "": none."""
    drop = protocol.get("drop", SAME_CAMERA)
    known = {name for name, value in vars(labels).items() if value is not None}
    missing = [name for name in looks_at(drop) if not {f"q_{name}", f"g_{name}"} <= known]
    if not missing:
        return ""
    advice = "; --drop none (drop='none') does without" if missing == ["camids"] else ""
    return f"{of} no {' and no '.join(missing)}, which the rule {drop} looks at{advice}"


def check_asked_rule(labels: Labels | None, protocol: Mapping[str, Any], file: Path) -> None:
    """Raise InputError if a rule that somebody asked for cannot be used; the common one is noted.

    `file` is where labels come from.
    """
    drop = protocol.get("drop", SAME_CAMERA)
    if not isinstance(drop, str) or drop != SAME_CAMERA or "camera_groups" in protocol:
        verdicts_by(labels, protocol, file)


def verdicts_by(labels: Labels | None, protocol: Mapping[str, Any], file: Path) -> "Verdicts":
    """Return what labels from `file` say; raise InputError if there are too few for the rule."""
    if labels is None:
        raise InputError(f"{file} has no pids to evaluate by")
    reason = why_not(labels, protocol, f"{file} has")
    if reason:
        raise InputError(reason)
    return Verdicts(labels, protocol)


def verdicts_of(labels: Labels | None, protocol: Mapping[str, Any]) -> "Verdicts | None":
    """Return what labels say; None where there are none, or too few for the protocol's rule."""
    return None if labels is None or why_not(labels, protocol) else Verdicts(labels, protocol)


@dataclass(frozen=True)
class Verdicts:
    """What labels say of each pair of a query and a gallery image.

    `protocol` are keyword arguments of RankEvaluator. Raises InputError if the rule cannot be used.
    """

    labels: Labels
    protocol: Mapping[str, Any]

    def __post_init__(self) -> None:
        reason = why_not(self.labels, self.protocol)
        if reason:
            raise InputError(reason)
        drop = self.protocol.get("drop")
        if isinstance(drop, DropMask):
            drop.check(len(self.labels.q_pids), len(self.labels.g_pids))
        _ = self._rule

    @cached_property
    def _rule(self) -> DropRule:
        known, protocol = self.labels, self.protocol
        pids, camids, clothes = (
            _as_int64(*pair)
            for pair in (
                (known.q_pids, known.g_pids), (known.q_camids, known.g_camids),
                (known.q_clothes, known.g_clothes),
            )
        )  # fmt: skip
        drop, groups = protocol.get("drop", SAME_CAMERA), protocol.get("camera_groups", ())
        with kernel_errors():
            return DropRule.of(drop, pids, camids, clothes, groups)

    @cached_property
    def _counts(self) -> tuple[Bools, Bools]:
        """Which queries [Q] and gallery images [G] are not junk that is left out."""
        dropped = _drops_junk(self.protocol)
        query, gallery = (
            pids != JUNK_PID if drops else np.ones(len(pids), bool)
            for pids, drops in zip((self.labels.q_pids, self.labels.g_pids), dropped, strict=True)
        )
        return query, gallery

    @property
    def counted_queries(self) -> Bools:
        """Which queries [Q] are not left out as junk."""
        return self._counts[0]

    @property
    def counted_images(self) -> Bools:
        """Which gallery images [G] are not left out as junk."""
        return self._counts[1]

    def same_person(self, queries: NDArray[Any], images: NDArray[Any]) -> Bools:
        """Whether images[p] shows the person of queries[p], dropped or not: [P]."""
        same: Bools = self.labels.q_pids[queries] == self.labels.g_pids[images]
        return same

    def dropped(self, queries: NDArray[Any], images: NDArray[Any]) -> Bools:
        """Whether images[p] does not count in the ranking of queries[p]: [P]."""
        with kernel_errors():
            by_rule = self._rule.pairs(queries, images)
        dropped: Bools = by_rule | ~self.counted_images[images]
        return dropped

    def listed(self, indices: NDArray[np.integer[Any]]) -> tuple[Bools, Bools]:
        """Return of the images that each query lists [Q,k] which match, and which are dropped."""
        queries = np.repeat(np.arange(len(indices)), indices.shape[1])
        images = indices.ravel()
        found = self.same_person(queries, images), self.dropped(queries, images)
        return found[0].reshape(indices.shape), found[1].reshape(indices.shape)

    @cached_property
    def num_matches(self) -> NDArray[np.int64]:
        """How many matches of each query [Q] are not dropped; none of a query left out as junk."""
        order = np.argsort(self.labels.g_pids, kind="stable")
        ordered = self.labels.g_pids[order]
        starts, stops = (
            np.searchsorted(ordered, self.labels.q_pids, side) for side in ("left", "right")
        )
        found = np.zeros(len(starts), np.int64)
        totals = np.cumsum(stops - starts)
        parts = np.searchsorted(totals, np.arange(0, totals[-1] + 1, _AT_ONCE), "right")
        for first, last in zip(parts, [*parts[1:], len(starts)], strict=True):
            sizes = (stops - starts)[first:last]
            queries = np.repeat(np.arange(first, last), sizes)
            places = np.arange(len(queries)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            kept = ~self.dropped(queries, order[starts[queries] + places])
            found += np.bincount(queries[kept], minlength=len(found))
        return np.where(self.counted_queries, found, 0)

    @property
    def counts(self) -> dict[str, int]:
        """How many queries there are, are evaluated, and lost every match to what is dropped."""
        valid = self.num_matches > 0
        there = np.isin(self.labels.q_pids, self.labels.g_pids[self.counted_images])
        known = there & self.counted_queries
        return {
            "num_query": len(valid),
            "num_valid": int(valid.sum()),
            "num_emptied": int((known & ~valid).sum()),
        }

    @property
    def summary(self) -> str:
        """How many queries are evaluated and how, in a sentence."""
        return evaluated_line(self.protocol, self.counts)

    @property
    def no_match(self) -> str:
        """What to say where no query has a match."""
        if rule_of(self.protocol).endswith(SAME_CAMERA):
            return "no query has a gallery image of its pid from another camera"
        return f"no query has a gallery image of its pid that counts ({rule_of(self.protocol)})"

    @property
    def notes(self) -> list[str]:
        """What became of images of nobody known, and of unknown clothes."""
        return [*junk_notes(self.labels, self.protocol), *self._clothes_notes()]

    def _clothes_notes(self) -> list[str]:
        labels = self.labels
        if "clothes" not in looks_at(self.protocol.get("drop")):
            return []
        sides = (("query", labels.q_clothes), ("gallery image", labels.g_clothes))
        counts = [
            f"{int((worn <= NO_CLOTHES).sum())} ({name})"
            for name, worn in sides
            if worn is not None and (worn <= NO_CLOTHES).any()
        ]
        if not counts:
            return []
        return [f"dropped beside their person, as clothes are not known (-1): {', '.join(counts)}"]


def evaluator_arguments(labels: Labels, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of RankEvaluator; junk is kept unless a protocol says so."""
    return {"junk": "keep", **vars(labels), **protocol}


def rule_of(protocol: Mapping[str, Any]) -> str:
    """Name a protocol and what it drops, in a few words."""
    text = f"{protocol.get('protocol', 'market1501')}, drop {_name_of(protocol)}"
    groups = ["+".join(map(str, group)) for group in protocol.get("camera_groups", ())]
    return f"{text}, cameras {', '.join(groups)} as one" if groups else text


def evaluated_line(protocol: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    """Say how many queries were evaluated, and how; a protocol may be as JSON has it."""
    of = f" of {counts['num_query']}" if "num_query" in counts else ""
    text = f"{counts['num_valid']}{of} queries evaluated ({rule_of(protocol)})"
    lost = counts["num_emptied"]
    return f"{text}; {lost} left without a match, not counted" if lost else text


def protocol_json(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return a protocol as JSON has it: a mask is its file."""
    drop = protocol.get("drop")
    return {
        **protocol,
        "drop": drop.to_json() if isinstance(drop, DropMask) else _name_of(protocol),
    }


def _name_of(protocol: Mapping[str, Any]) -> str:
    """Name what is dropped: a rule, or the file of a mask."""
    drop = protocol.get("drop", SAME_CAMERA)
    return str(drop) if isinstance(drop, str | DropMask) else "by a mask"


def junk_notes(labels: Labels, protocol: Mapping[str, Any]) -> list[str]:
    """Say how many have pid -1 and what an evaluator makes of them; none: there are none."""
    sides = zip(
        ("query", "gallery image"), (labels.q_pids, labels.g_pids), _drops_junk(protocol),
        strict=True,
    )  # fmt: skip
    kept: list[str] = []
    left_out: list[str] = []
    for name, pids, drops in sides:
        count = int((pids == JUNK_PID).sum())
        if count:
            (left_out if drops else kept).append(f"{count} of pid -1 ({name})")
    notes = []
    if left_out:
        notes.append(f"left out of the evaluation as junk: {', '.join(left_out)}")
    if kept:
        notes.append(
            f"evaluated as persons: {', '.join(kept)}; where -1 is junk, as in Market-1501, "
            "pass --drop-junk (junk='drop')"
        )
    return notes


def _drops_junk(protocol: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether an evaluator leaves out junk among queries and in the gallery."""
    dropped = protocol.get("junk") == "drop"
    return dropped, dropped or protocol.get("protocol") == "trapezoid"


def _as_int64(query: Ids | None, gallery: Ids | None) -> Any:
    """Return labels as kernels take them: of unsigned ones, none is too large."""
    return tuple(None if one is None else one.astype(np.int64) for one in (query, gallery))
