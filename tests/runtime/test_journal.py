"""The journal: what was recorded is known again, whatever happens to its files."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from murank import OutputError
from murank.journal import Journal, KnownMu, MadeBy
from murank.journal import segments as _segments
from murank.journal.known_mu import pair_keys
from murank.journal.segments import SegmentRecord, SegmentWriter, read_records, segment_files

MADE_BY = MadeBy("e" * 64, "CPU x86_64 avx2", {"encoder": ["CPUExecutionProvider"]})
RANDOM = np.random.default_rng(0)


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def numbered(count: int) -> list[SegmentRecord]:
    return [
        SegmentRecord("kind", {"number": i}, {"a": RANDOM.random((i % 4, 5)), "b": np.arange(i)})
        for i in range(count)
    ]


def write(folder: Path, records: list[SegmentRecord]) -> None:
    writer = SegmentWriter(folder, lambda: None)
    for record in records:
        writer.append([record])
    writer.close()


def numbers(folder: Path) -> list[int]:
    return [record.facts["number"] for record in read_records(folder)]


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = numbered(9)
    write(tmp_path / "j", records[:5])
    write(tmp_path / "j", records[5:])
    found = list(read_records(tmp_path / "j"))
    assert [record.facts for record in found] == [record.facts for record in records]
    for one, other in zip(found, records, strict=True):
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in one.arrays.items():
            assert array.dtype == other.arrays[name].dtype
            np.testing.assert_array_equal(array, other.arrays[name])


def test_nothing_is_made_before_there_is_a_record(tmp_path: Path) -> None:
    Journal(tmp_path / "j").close()
    assert list(tmp_path.iterdir()) == []
    assert list(read_records(tmp_path / "j")) == []


def test_files_are_small_and_their_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_segments, "LARGEST", 1000)
    write(tmp_path / "j", numbered(20))
    files = segment_files(tmp_path / "j")
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) <= 1000
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o700
    assert numbers(tmp_path / "j") == list(range(20))


def test_every_torn_end_loses_the_last_record_alone(tmp_path: Path) -> None:
    write(tmp_path, numbered(4))
    (file,) = segment_files(tmp_path)
    raw, last = file.read_bytes(), len(numbered(4)[3].to_bytes())
    for length in range(len(raw) - last, len(raw)):
        file.write_bytes(raw[:length])
        assert numbers(tmp_path) == [0, 1, 2]
    file.write_bytes(raw)
    assert numbers(tmp_path) == [0, 1, 2, 3]


def test_every_flipped_bit_loses_one_record_alone(tmp_path: Path) -> None:
    write(tmp_path, numbered(4))
    (file,) = segment_files(tmp_path)
    raw = file.read_bytes()
    ends = np.cumsum([len(record.to_bytes()) for record in numbered(4)])
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        hit = int(np.searchsorted(ends, place, side="right"))
        assert numbers(tmp_path) == [i for i in range(4) if i != hit], place


def test_a_full_disk_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(tmp_path, lambda: None)
    writer.append(numbered(2))
    write_some, calls = os.write, []

    def full(file: int, raw: bytes) -> int:
        calls.append(file)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write_some(file, raw[:20])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="No space left"):
            writer.append(numbered(1))
    assert numbers(tmp_path) == [0, 1]
    writer.append(numbered(1))
    writer.close()
    assert numbers(tmp_path) == [0, 1, 0]


def test_mu_of_pairs() -> None:
    known = KnownMu()
    keys = pair_keys(np.array([[1, 1], [2, 3]]), np.array([[5, 6], [5, 1]]))
    assert not known.look_up(keys)[1].any()
    known.add(keys[0], np.array([0.25, np.nan], np.float32))
    known.add(keys[:, 0], np.array([0.5, 0.75], np.float32))
    mu, is_known = known.look_up(keys)
    assert is_known.tolist() == [[True, True], [True, False]]
    np.testing.assert_array_equal(mu, np.array([[0.25, np.nan], [0.75, np.nan]], np.float32))
    assert len(known) == 3


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_was_found_out_is_known(tmp_path: Path, *, on_disk: bool) -> None:
    folder = tmp_path / "j" if on_disk else None
    journal = Journal(folder)
    contents = [digest(i) for i in range(4)]
    rows = RANDOM.random((2, 8)).astype(np.float32)
    journal.record_features(
        MADE_BY, contents[:2], rows, {contents[2]: "no image"},
        paths=["/a", "/b", "/c"], stats=[(1, 2, 3), (3, 4, 5), (5, 6, 7)], contents=contents[:3],
    )  # fmt: skip
    journal.record_files(["/d"], [(7, 8, 9)], contents[3:])
    pairs = np.array([[0, 1], [1, 0]])
    journal.record_mu(
        MADE_BY, "given", contents[:2], pairs, np.array([0.5, np.nan], np.float32),
        {1: "no number"}, {contents[3]: "too long"},
    )  # fmt: skip
    if folder is not None:
        journal.close()
        journal = Journal(folder)
    assert journal.digest("/b", (3, 4, 5)) == contents[1]
    assert journal.digest("/d", (7, 8, 9)) == contents[3]
    assert journal.digest("/b", (3, 4, 6)) is None
    assert journal.digest("/b", None) is None
    engine = MADE_BY.engine
    np.testing.assert_array_equal(journal.feature(engine, contents[1]), rows[1])
    assert [journal.is_embedded(engine, one) for one in contents] == [True] * 4
    assert not journal.is_embedded("other", contents[0])
    assert journal.unusable(engine, contents[2]) == "no image"
    assert journal.unusable(engine, contents[3]) == "too long"
    assert list(journal.made_by(engine)) == [MADE_BY]
    first, second = (np.array([journal.number(one)]) for one in contents[:2])
    mu, is_known = journal.mu(engine, "given").look_up(pair_keys(first, second))
    assert (mu.tolist(), is_known.tolist()) == ([0.5], [True])
    (reason,) = journal.mu(engine, "given").reasons.values()
    assert reason == "no number"
    assert len(journal.mu(engine, "swapped")) == 0


def test_shares_write_apart_and_are_read_together(tmp_path: Path) -> None:
    for name in ("share-1-of-2", "share-2-of-2"):
        journal = Journal(tmp_path, tmp_path / name)
        journal.record_files([f"/{name}"], [(1, 1, 1)], [digest(1)])
        journal.close()
    assert len(segment_files(tmp_path)) == 2
    journal = Journal(tmp_path)
    assert journal.digest("/share-1-of-2", (1, 1, 1)) == journal.digest("/share-2-of-2", (1, 1, 1))


def right_records() -> dict[str, SegmentRecord]:
    facts = {**MADE_BY.facts, "unusable": ["why"]}
    refused = np.zeros((1, 32), np.uint8)
    two = np.arange(64, dtype=np.uint8).reshape(2, 32)
    return {
        "files": SegmentRecord(
            "files", {"paths": ["/a", "/b"]},
            {"stats": np.arange(6).reshape(2, 3), "digests": two},
        ),
        "features": SegmentRecord(
            "features", facts,
            {"digests": two, "features": np.ones((2, 4), np.float32), "refused": refused},
        ),
        "mu": SegmentRecord(
            "mu", {**facts, "order": "given", "unanswered": [1], "reasons": ["why"]},
            {
                "images": two, "pairs": np.array([[0, 1], [1, 0]], np.uint16),
                "mu": np.array([0.5, np.nan], np.float32), "refused": refused,
            },
        ),
    }  # fmt: skip


WRONG: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "a path that is a number": ("files", {"paths": ["/a", 7]}, {}),
    "too few paths": ("files", {"paths": ["/a"]}, {}),
    "digests of another length": ("files", {}, {"digests": np.zeros((2, 31), np.uint8)}),
    "more digests than features": ("features", {}, {"digests": np.zeros((3, 32), np.uint8)}),
    "features of another type": ("features", {}, {"features": np.ones((2, 4))}),
    "features that are no numbers": ("features", {}, {"features": np.full((2, 4), np.nan, "f")}),
    "reasons that are missing": ("features", {"unusable": []}, {}),
    "no engine": ("features", {"engine": None}, {}),
    "a pair beyond the images": ("mu", {}, {"pairs": np.array([[0, 2], [1, 0]], np.uint16)}),
    "mu above 1": ("mu", {}, {"mu": np.array([0.5, 1.5], np.float32)}),
    "fewer mu than pairs": ("mu", {}, {"mu": np.array([0.5], np.float32)}),
    "a place that is none": ("mu", {"unanswered": [2]}, {}),
    "another order": ("mu", {"order": "both"}, {}),
    "another kind": ("mu", {"kind": "nu"}, {}),
}


@pytest.mark.parametrize("what", [None, *WRONG])
def test_a_whole_record_that_is_not_right_is_none(tmp_path: Path, what: str | None) -> None:
    records = right_records()
    if what is not None:
        kind, facts, arrays = WRONG[what]
        one = records[kind]
        name = str(facts.pop("kind", kind))
        records[kind] = SegmentRecord(name, {**one.facts, **facts}, {**one.arrays, **arrays})  # type: ignore[dict-item]
    write(tmp_path, list(records.values()))
    journal = Journal(tmp_path)
    kinds = {
        "files": journal.digest("/a", (0, 1, 2)) is not None,
        "features": journal.has_features(MADE_BY.engine),
        "mu": len(journal.mu(MADE_BY.engine, "given")) == 2,
    }
    assert {kind for kind, found in kinds.items() if not found} == (
        set() if what is None else {WRONG[what][0]}
    )
