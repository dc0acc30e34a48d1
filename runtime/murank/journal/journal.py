"""The journal of a job: which content a file has, its features, mu of two contents.

A content is known by the sha256 of a file's bytes, so that a file that was touched, moved or
copied is nothing new.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.journal.known_mu import KnownMu, pair_keys
from murank.journal.record_check import is_right
from murank.journal.segments import SegmentRecord, SegmentWriter, read_records

Digest = bytes  # sha256 of a file's bytes
# Size, time of the content, time of any change: as long as they stay, a file is taken as it was.
Stat = tuple[int, int, int]
_DIGEST = 32


@dataclass(frozen=True)
class MadeBy:
    """What answers came from."""

    engine: str  # fingerprint of all that they depend on
    device: str  # answers of one kind of device are the same bit for bit
    providers: Mapping[str, Sequence[str]]  # of each graph: what ran it

    @property
    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "engine": self.engine, "device": self.device,
            "providers": {graph: list(names) for graph, names in self.providers.items()},
        }  # fmt: skip


class Journal:
    """All that is known, and the file that what is new is appended to. Without a folder: memory."""

    def __init__(
        self,
        folder: Path | None = None,
        own: Path | None = None,
        before_writing: Callable[[], None] = lambda: None,
        *,
        writes: bool = True,
    ) -> None:
        """Read a folder and all in it; what is new goes to `own`, or to the folder itself.

        Unless it `writes`, what is new is kept in memory alone.
        """
        self._folder = folder
        self._writer = SegmentWriter(own or folder, before_writing) if folder and writes else None
        self._files: dict[str, tuple[Stat, Digest]] = {}
        self._numbers: dict[Digest, int] = {}
        self._features: dict[str, dict[Digest, NDArray[np.float32] | None]] = {}
        self._unusable: dict[str, dict[Digest, str]] = {}
        self._mu: dict[tuple[str, str], KnownMu] = {}
        self._made_by: dict[str, list[MadeBy]] = {}
        for record in [] if folder is None else read_records(folder):
            if is_right(record):
                self._learn(record)

    def close(self) -> None:
        """Make what was recorded durable. Raises OutputError if the system refuses."""
        if self._writer is not None:
            self._writer.close()

    def digest(self, path: str, stat: Stat | None) -> Digest | None:
        """Return the content of a file, None unless it is known and the file seems unchanged."""
        known = self._files.get(path)
        return known[1] if known is not None and known[0] == stat else None

    def recorded(self, paths: Iterable[str]) -> set[Digest]:
        """Return the contents that files had when they were looked at last."""
        return {self._files[path][1] for path in paths if path in self._files}

    def number(self, digest: Digest) -> int:
        """Return the number of a content, the same for equal ones."""
        return self._numbers.setdefault(digest, len(self._numbers))

    def made_by(self, engine: str) -> Sequence[MadeBy]:
        """What answered for an engine, as it was recorded; each once."""
        return self._made_by.get(engine, ())

    def has_features(self, engine: str) -> bool:
        """Whether there are any of this engine."""
        return bool(self._features.get(engine))

    def is_embedded(self, engine: str, digest: Digest) -> bool:
        """Whether the features of a content are known, or that it cannot have any."""
        return digest in self._features.get(engine, ()) or self.unusable(engine, digest) is not None

    def feature(self, engine: str, digest: Digest) -> NDArray[np.float32]:
        """Return the features [D] of an embedded content."""
        found = self._features[engine][digest]
        if found is None:  # recorded by this process: it is read again where it lies on the disk
            self._read_features(engine)
            found = self._features[engine][digest]
        assert found is not None  # noqa: S101
        return found

    def unusable(self, engine: str, digest: Digest) -> str | None:
        """Return why an engine cannot use a content, None if that is not known."""
        return self._unusable.get(engine, {}).get(digest)

    def mu(self, engine: str, order: str) -> KnownMu:
        """Return mu of pairs of numbers of contents; `record_mu` adds to it."""
        return self._mu.setdefault((engine, order), KnownMu())

    def record_files(
        self, paths: Sequence[str], stats: Sequence[Stat], digests: Sequence[Digest]
    ) -> None:
        """Keep which content files have."""
        if paths:
            self._record([_files(paths, stats, digests)])

    def record_features(
        self,
        made_by: MadeBy,
        digests: Sequence[Digest],
        features: NDArray[np.float32],
        unusable: Mapping[Digest, str],
        *,
        paths: Sequence[str] = (),
        stats: Sequence[Stat] = (),
        contents: Sequence[Digest] = (),
    ) -> None:
        """Keep features [n,D] of contents [n], why others have none, and where contents were."""
        facts = {**made_by.facts, "unusable": list(unusable.values())}
        arrays: dict[str, NDArray[Any]] = {
            "digests": _as_rows(digests), "features": features, "refused": _as_rows([*unusable]),
        }  # fmt: skip
        files = [_files(paths, stats, contents)] if paths else []
        self._record([*files, SegmentRecord("features", facts, arrays)])

    def record_mu(
        self,
        made_by: MadeBy,
        order: str,
        images: Sequence[Digest],
        pairs: NDArray[np.integer[Any]],
        mu: NDArray[np.float32],
        reasons: Mapping[int, str],
        unusable: Mapping[Digest, str],
    ) -> None:
        """Keep mu [n] of pairs [n,2] of places in `images`; NaN for a reason, by place in `mu`."""
        facts = {
            **made_by.facts, "order": order, "unusable": list(unusable.values()),
            "unanswered": list(reasons), "reasons": list(reasons.values()),
        }  # fmt: skip
        small = np.uint16 if len(images) < 1 << 16 else np.uint32
        arrays: dict[str, NDArray[Any]] = {
            "images": _as_rows(images), "pairs": pairs.astype(small), "mu": mu,
            "refused": _as_rows([*unusable]),
        }  # fmt: skip
        self._record([SegmentRecord("mu", facts, arrays)])

    def _record(self, records: Sequence[SegmentRecord]) -> None:
        if self._writer is not None:
            self._writer.append(records)
        for record in records:
            self._learn(record, from_disk=self._writer is None)

    def _learn(self, record: SegmentRecord, *, from_disk: bool = True) -> None:
        facts, arrays = record.facts, record.arrays
        if record.kind == "files":
            stats = [(size, time, change) for size, time, change in arrays["stats"].tolist()]
            digests = digests_of_rows(arrays["digests"])
            self._files.update(zip(facts["paths"], zip(stats, digests, strict=True), strict=True))
            return
        engine = facts["engine"]
        self._note_maker(MadeBy(engine, facts["device"], facts["providers"]))
        refused = zip(digests_of_rows(arrays["refused"]), facts["unusable"], strict=True)
        self._unusable.setdefault(engine, {}).update(refused)
        if record.kind == "features":
            self._learn_features(record, from_disk=from_disk)
        else:
            self._learn_mu(record)

    def _learn_features(self, record: SegmentRecord, *, from_disk: bool) -> None:
        known = self._features.setdefault(record.facts["engine"], {})
        rows: Iterator[NDArray[np.float32] | None] = iter(record.arrays["features"])
        for digest in digests_of_rows(record.arrays["digests"]):
            known[digest] = next(rows) if from_disk else None

    def _learn_mu(self, record: SegmentRecord) -> None:
        facts, arrays = record.facts, record.arrays
        known = self._numbers
        images = digests_of_rows(arrays["images"])
        numbers = np.array([known.setdefault(one, len(known)) for one in images], np.int64)
        pairs = numbers[arrays["pairs"]]
        keys = pair_keys(pairs[:, 0], pairs[:, 1])
        mu = self.mu(facts["engine"], facts["order"])
        mu.add(keys, arrays["mu"])
        if facts["unanswered"]:
            unanswered = keys[np.array(facts["unanswered"], np.int64)].tolist()
            mu.reasons.update(zip(unanswered, facts["reasons"], strict=True))

    def _read_features(self, engine: str) -> None:
        assert self._folder is not None  # noqa: S101
        for record in read_records(self._folder):
            is_wanted = record.kind == "features" and record.facts.get("engine") == engine
            if is_wanted and is_right(record):
                self._learn_features(record, from_disk=True)

    def _note_maker(self, maker: MadeBy) -> None:
        makers = self._made_by.setdefault(maker.engine, [])
        if maker not in makers:
            makers.append(maker)


def _files(paths: Sequence[str], stats: Sequence[Stat], digests: Sequence[Digest]) -> SegmentRecord:
    rows = np.array(stats, np.int64).reshape(-1, 3)
    arrays: dict[str, NDArray[Any]] = {"stats": rows, "digests": _as_rows(digests)}
    return SegmentRecord("files", {"paths": list(paths)}, arrays)


def _as_rows(digests: Sequence[Digest]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST)


def digests_of_rows(rows: NDArray[np.uint8]) -> list[Digest]:
    """Return the digests of rows [n,32]."""
    raw = rows.tobytes()
    return [raw[start : start + _DIGEST] for start in range(0, len(raw), _DIGEST)]
