"""Names from outside: one line, escaped, cut, wherever they are shown."""

import io
import pickle
from pathlib import Path

import pytest

from murank import InputError
from murank.checks.text import plain, plain_lines, shown, warn
from murank.cli.output import gathered_notes
from murank.cli.progress import ProgressLine
from murank.images import load_image

HOSTILE = [
    "\x1b[2J", "a\nmurank: error: forged", "a\rb", "\x07\x08", "\x7f", "\x9b31m", "\x85",
    *(chr(one) for one in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))),
    "\u200b", "\u200e", "\u2028", "\u2029", "\ufeff", "\udcff", "\ud800", "\U000e0041", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped(text: str) -> None:
    for line in (plain(text), shown(Path(text)), str(InputError(f"{text}: wrong")), shown(text)):
        assert line.isprintable()
        line.encode()
        assert plain(line) == line
    assert str(pickle.loads(pickle.dumps(InputError(text)))) == plain(text)  # noqa: S301


@pytest.mark.parametrize("text", ["0001_c1s1.jpg", "Größe ü.png", "人物 1.png", "a\\x1b"])
def test_what_can_be_read_stays(text: str) -> None:
    assert plain(text) == text
    assert str(InputError(text)) == text


def test_cut() -> None:
    assert len(plain("a" * 5_000)) == 300 - 1
    line = plain("/".join(["name"] * 2_000) + ": No such file")
    assert len(line) < 350
    assert line.endswith(": No such file")
    assert len(plain("a b " * 50_000)) <= 4_000
    assert plain_lines("a\x1b\nb") == "a\\x1b\nb"


def test_a_forged_line_of_progress_and_of_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    stream = io.StringIO()
    ProgressLine(stream).say("left out: a\nmurank: done\x1b[2J")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    with gathered_notes():
        warnings.simplefilter("always")
        warnings.warn("a\nmurank: done\x1b[2J", RuntimeWarning, stacklevel=1)
        warn("b\nmurank: done\x1b[2J")
    assert capsys.readouterr().err.count("\n") == 2


def test_the_name_of_an_image_forges_no_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_image(tmp_path / "a\nmurank: error\x1b[2J.png")
    assert str(caught.value).isprintable()
    assert "a\\nmurank: error\\x1b[2J.png" in str(caught.value)
