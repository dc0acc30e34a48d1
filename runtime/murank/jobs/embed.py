"""The first stage: images to features.npz."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.crew.crew_protocol import Lost
from murank.jobs.desk import Desk
from murank.jobs.image_contents import NoContent, shown
from murank.jobs.job_images import Images
from murank.jobs.job_units import EmbedAnswer, EmbedUnit, Provenance
from murank.jobs.needs import features_bytes
from murank.jobs.stage import Arrays, Record, fingerprint, full_record
from murank.jobs.workspace import FEATURES_FILE, Workspace
from murank.journal.journal import Digest
from murank.rerank.features import FeatureSet, feature_arrays

_BATCH = 32  # images that the engine is given at once; what a killed run loses at most

_Contents = list[Digest | NoContent | None]  # of each row; None: not looked at


class NoQueryError(InputError):
    """No query is left: of a share, there is nothing to ask."""


@dataclass(frozen=True)
class Embedded:
    """The features of the images that can be read."""

    features: FeatureSet
    images: Images  # the same rows
    digests: tuple[Digest, ...]  # of the same rows
    skipped: list[dict[str, str]]  # path and reason of the others
    record: Record
    state: str  # "made", "resumed" or "reused"


def embed(
    images: Images, desk: Desk, workspace: Workspace, *, rows: NDArray[np.bool_] | None = None
) -> Embedded:
    """Embed images, all or the `rows` [N]; those that cannot be read are left out.

    Raises
    ------
    InputError
        More cannot be read than may be, or no query or no gallery image is left.
    """
    wanted = np.ones(len(images.paths), bool) if rows is None else rows
    own = np.flatnonzero(wanted).tolist()
    _ = images.stats  # taken before the files are read: one that changes later is read again
    contents = _known_contents(images, desk, own)
    known, total = _count_known(desk, contents, own)
    workspace.check_room(features_bytes(total - known, total, desk.engine.encoder.dim))
    state = desk.announce(FEATURES_FILE, "images", known, total)
    watch = desk.skips.watch(len(images.paths))
    same = _rows_of_paths(images, own)
    watch.left_out(_reasons(images, desk, contents, own))
    for unit, answer in _answers(images, desk, contents, own, same):
        _take(unit, answer, images, desk, contents)
        _spread(unit, same, contents)
        watch.left_out(_reasons(images, desk, contents, unit.rows))
    undone = sum(not _is_known(desk, contents[row]) for row in own)
    if undone:
        raise RuntimeError(f"{undone} images were given to workers and did not come back")
    reasons = _reasons(images, desk, contents, own)
    desk.used.update(one for one in contents if isinstance(one, bytes))
    readable, digests = _readable(images, contents, wanted, reasons)
    features = readable.with_features(_gathered(desk, digests), desk.engine.encoder_sha256)
    made_from = fingerprint(desk.embeds, [digest.hex() for digest in digests], readable.num_query)
    skipped = [{"path": str(images.paths[row]), "reason": why} for row, why in reasons.items()]
    record = {
        "fingerprint": made_from, "features": made_from,
        "providers": desk.providers_of(desk.embeds),
        "skipped": [[row, why] for row, why in reasons.items()],
    }  # fmt: skip
    if rows is None:  # the features of a share are no features of the job
        keep(FEATURES_FILE, feature_arrays(features), record, workspace)
    return Embedded(features, readable, digests, skipped, record, state)


def given_record(made_from: str) -> Record:
    """Return the record of features from elsewhere, of which `made_from` is the fingerprint."""
    return {"fingerprint": made_from, "features": made_from, "providers": {}, "skipped": []}


def keep(name: str, arrays: Arrays, record: Record, workspace: Workspace) -> bool:
    """Write the file of a stage unless it is as it would be; return whether it was written."""
    if workspace.record(name) == full_record(arrays, record):
        return False
    workspace.write(name, arrays, record)
    return True


def _known_contents(images: Images, desk: Desk, rows: Sequence[int]) -> _Contents:
    """Return what is known of files that seem unchanged.

    Where features are known, files that seem changed are read for their contents, as these may
    be known, too. Else they are read to be decoded.
    """
    contents: _Contents = [None] * len(images.paths)
    if desk.journal.has_features(desk.embeds):
        stats = dict(zip(images.paths, images.stats, strict=True))
        found = desk.contents_of([images.paths[row] for row in rows], stats)
        for row in rows:
            contents[row] = found[images.paths[row]]
    return contents


def _is_known(desk: Desk, content: Digest | NoContent | None) -> bool:
    if isinstance(content, bytes):
        return desk.journal.is_embedded(desk.embeds, content)
    return content is not None


def _count_known(desk: Desk, contents: _Contents, rows: Sequence[int]) -> tuple[int, int]:
    return sum(_is_known(desk, contents[row]) for row in rows), len(rows)


def _rows_of_paths(images: Images, own: Sequence[int]) -> dict[int, list[int]]:
    """Return, by the first row of a file, the other rows that have the same file."""
    first: dict[Path, int] = {}
    same: dict[int, list[int]] = {}
    for row in own:
        known = first.setdefault(images.paths[row], row)
        if known != row:
            same.setdefault(known, []).append(row)
    return same


def _spread(unit: EmbedUnit, same: Mapping[int, Sequence[int]], contents: _Contents) -> None:
    for row in unit.rows:
        for other in same.get(row, ()):
            contents[other] = contents[row]


def _answers(
    images: Images,
    desk: Desk,
    contents: _Contents,
    own: Sequence[int],
    same: Mapping[int, Sequence[int]],
) -> Iterator[tuple[EmbedUnit, EmbedAnswer]]:
    """Yield what is found in the files whose features are not known, in units of whole batches."""
    again = {other for rows in same.values() for other in rows}  # a file is read once
    rows = [row for row in own if row not in again and not _is_known(desk, contents[row])]
    units = [
        EmbedUnit(tuple(some), tuple(str(images.paths[row]) for row in some))
        for _, group in groupby(rows, lambda row: row // _BATCH)
        for some in [list(group)]
    ]
    if not units:  # nobody need be started
        return
    show, done = desk.report.part("embed", workers=desk.crew.size), 0
    for unit, answer in desk.crew.answers(units):
        done += len(unit.rows)
        yield unit, _lost(unit, answer) if isinstance(answer, Lost) else answer
        show("images", done, len(rows))


def _lost(unit: EmbedUnit, lost: Lost) -> EmbedAnswer:
    reason = f"{unit.paths[0]}: {lost.reason}"
    nothing = np.empty((0, 0), np.float32)
    return EmbedAnswer([None], {0: reason}, {}, [], nothing, Provenance("", {}))


def _take(
    unit: EmbedUnit, answer: EmbedAnswer, images: Images, desk: Desk, contents: _Contents
) -> None:
    """Record an answer."""
    for place, row in enumerate(unit.rows):
        digest = answer.digests[place]
        contents[row] = NoContent(answer.unread[place]) if digest is None else digest
    new = [i for i, one in enumerate(answer.embedded) if not _is_known(desk, one)]
    desk.images_embedded += len(new)
    files = [
        (str(images.paths[row].absolute()), stat, digest)
        for row, digest in zip(unit.rows, answer.digests, strict=True)
        if digest is not None and (stat := images.stats[row]) is not None
    ]
    if not files and not new:
        return
    names, stats, digests = zip(*files, strict=True) if files else ((), (), ())
    desk.journal.record_features(
        desk.made_by(desk.embeds, answer.made_by), [answer.embedded[i] for i in new],
        answer.features[new], answer.refused, paths=names, stats=stats, contents=digests,
    )  # fmt: skip


def _reasons(
    images: Images, desk: Desk, contents: _Contents, rows: Iterable[int]
) -> dict[int, str]:
    """Return why rows have no features, as far as is known."""
    reasons = {}
    for row in rows:
        content = contents[row]
        if isinstance(content, NoContent):
            reasons[row] = content.reason
        elif content is not None:
            refused = desk.journal.unusable(desk.embeds, content)
            if refused is not None:
                reasons[row] = shown(refused, images.paths[row])
    return reasons


def _gathered(desk: Desk, digests: Sequence[Digest]) -> NDArray[np.float32]:
    features = np.empty((len(digests), desk.engine.encoder.dim), np.float32)
    for row, digest in enumerate(digests):
        features[row] = desk.journal.feature(desk.embeds, digest)
    return features


def _readable(
    images: Images, contents: _Contents, wanted: NDArray[np.bool_], reasons: Mapping[int, str]
) -> tuple[Images, tuple[Digest, ...]]:
    kept = wanted.copy()
    kept[list(reasons)] = False
    for name, part in (
        ("query", slice(images.num_query)),
        ("gallery", slice(images.num_query, None)),
    ):
        if not kept[part].any():
            first = next(reason for row, reason in reasons.items() if row in range(len(kept))[part])
            kind = NoQueryError if name == "query" else InputError
            raise kind(f"no {name} image can be read; the first: {first}")
    found = (contents[row] for row in np.flatnonzero(kept).tolist())
    return images.kept(kept), tuple(one for one in found if isinstance(one, bytes))
