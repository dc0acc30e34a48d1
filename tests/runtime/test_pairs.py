import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from murank import InputError, OutputError
from murank.pairs.labelled import Pair, load_pairs, save_pairs, without_junk

PAIRS = [
    Pair("query/0001_c1.jpg", "gallery/0001_c2.jpg", True),
    Pair("query/0001_c1.jpg", "gallery/0002_c2.jpg", False),
]


def test_junk_is_left_out() -> None:
    junk = "gallery/-1_c3s1_0001_00.jpg"
    more = [Pair(junk, junk, True), Pair(PAIRS[0].query, junk, False), Pair(junk, "x.jpg", False)]
    others = [Pair("-1/0001_c1.jpg", "-10_c1.jpg", True), Pair("0000_c1.jpg", "-1.jpg", False)]
    assert without_junk([*more, *PAIRS, *others]) == [*PAIRS, *others]


@pytest.mark.parametrize(
    "path",
    [
        "a.jpg",
        "with space, comma.jpg",
        "Überführung/straße.jpg",
        "人/一.jpg",
        "\N{SLICE OF PIZZA}.jpg",
        'quote " and \\ backslash.jpg',
        "two\nlines\t.jpg",
        os.fsdecode(b"latin-\xe9.jpg"),  # a name that is not UTF-8, as the system lists it
        "\ufeffmark.jpg",
    ],
)
def test_round_trip(tmp_path: Path, path: str) -> None:
    pairs = [Pair(path, "b.jpg", True), Pair("b.jpg", path, False)]
    save_pairs(tmp_path / "pairs.json", pairs)
    assert load_pairs(tmp_path / "pairs.json") == pairs


def test_the_form_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "pairs.json"
    save_pairs(file, [*PAIRS, Pair("straße", "人", True)])
    text = file.read_text(encoding="utf-8")
    assert json.loads(text) == [
        {"query": "query/0001_c1.jpg", "candidate": "gallery/0001_c2.jpg", "match": "Yes"},
        {"query": "query/0001_c1.jpg", "candidate": "gallery/0002_c2.jpg", "match": "No"},
        {"query": "straße", "candidate": "人", "match": "Yes"},
    ]
    assert "straße" in text  # to be read by people
    assert len(text.splitlines()) == 5  # a pair a line, within brackets
    assert text.endswith("]\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_others_write_is_read(tmp_path: Path) -> None:
    file = tmp_path / "pairs.json"
    text = '[ {"match":"No","why":3,"candidate":"\\u4eba","query":"q"} ]'
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_text(text, encoding=encoding)
        assert load_pairs(str(file)) == [Pair("q", "人", False)]


def test_a_generator_is_written_into_a_new_folder(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "pairs.json"
    save_pairs(file, (pair for pair in PAIRS))
    assert load_pairs(file) == PAIRS
    save_pairs(file, PAIRS[:1])
    assert load_pairs(file) == PAIRS[:1]
    assert [path.name for path in file.parent.iterdir()] == ["pairs.json"]


def test_an_interrupted_writer_leaves_what_was_there(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Pair]:
        yield PAIRS[0]
        raise KeyboardInterrupt

    save_pairs(tmp_path / "pairs.json", PAIRS)
    with pytest.raises(KeyboardInterrupt):
        save_pairs(tmp_path / "pairs.json", interrupted())
    assert load_pairs(tmp_path / "pairs.json") == PAIRS
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.json"]


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write to"):
        save_pairs(tmp_path / "file" / "pairs.json", PAIRS)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write to"):
        save_pairs(tmp_path / "folder", PAIRS)


def refused(file: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_pairs(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    refused(tmp_path / "none.json", "No such file")
    refused(tmp_path, "Is a directory")


@pytest.mark.parametrize(
    "content",
    [
        b"query,candidate",
        b'[{"query": "a"',
        b'["\xff"]',
        b'"\xef\xbb\xbf',
        b"[" * 200_000,
        "[]".encode("utf-16"),
        b"1" * 5000,
    ],
)
def test_no_json(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "pairs.json"
    file.write_bytes(content)
    refused(file, "is not UTF-8 JSON: ")


@pytest.mark.parametrize("content", [[], {}, {"query": "a"}, "pairs", 3, None])
def test_no_list(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps(content))
    refused(file, "must hold a list of at least one pair")


GOOD = {"query": "a", "candidate": "b", "match": "Yes"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["a", "b", "Yes"], "an object with query, candidate and match"),
        ("a", "an object with"),
        (None, "an object with"),
        ({"query": "a", "match": "Yes"}, "an object with"),
        ({"query": "a", "candidate": "b"}, "an object with"),
        ({"candidate": "b", "match": "Yes"}, "an object with"),
        ({**GOOD, "query": ""}, "query and candidate must be paths"),
        ({**GOOD, "candidate": ""}, "query and candidate must be paths"),
        ({**GOOD, "query": 3}, "query and candidate must be paths"),
        ({**GOOD, "candidate": None}, "query and candidate must be paths"),
        ({**GOOD, "candidate": ["b"]}, "query and candidate must be paths"),
        ({**GOOD, "match": "yes"}, '"Yes" or "No", got \'yes\''),
        ({**GOOD, "match": ""}, "got ''"),
        ({**GOOD, "match": True}, "got True"),
        ({**GOOD, "match": None}, "got None"),
        ({**GOOD, "match": ["Yes"]}, r"got \['Yes'\]"),
        ({**GOOD, "match": {}}, r"got \{\}"),
    ],
)
def test_no_pair(tmp_path: Path, entry: Any, message: str) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps([GOOD, entry, GOOD]))
    refused(file, f": pair 1(:| must).*{message}")
