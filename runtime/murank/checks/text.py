"""Text from outside, such as the names of files, as it may be shown."""

import logging
import re
import reprlib

_WORD, _LINE = 300, 4000  # characters, at most; a name of the file system has up to 255 bytes
_LONG_WORD = re.compile(rf"\S{{{_WORD + 1},}}")
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def plain(text: str) -> str:
    """Return a line that no terminal acts on, and that cannot pass for two.

    What is no visible character (controls, line ends, marks that turn the direction of writing or
    have no width, halves of surrogate pairs) is written as Python's escapes; overlong words, and
    lines, lose their middle. Done twice it changes nothing more.
    """
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escaped(one) for one in text)
    if len(text) > _WORD:
        text = _LONG_WORD.sub(lambda word: _cut(word[0], _WORD), text)
    return _cut(text, _LINE)


def plain_lines(text: str) -> str:
    """Return lines, each as `plain` has it."""
    return "\n".join(map(plain, text.split("\n")))


def shown(value: object) -> str:
    """Return a path as it may be shown in a line, and of other values their shortened repr."""
    from os import PathLike, fspath

    if isinstance(value, PathLike):
        return plain(str(fspath(value)))
    try:
        return plain(_REPR.repr(value))
    except Exception:  # noqa: BLE001  a class of the caller's that cannot say what it is
        return type(value).__name__


def is_utf8(text: str) -> bool:
    """Whether a name can be written in UTF-8: native libraries take no others."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decodes(raw: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def warn(text: str, *, room: str | None = None) -> None:
    """Log a warning in one plain line, to "murank", or to what it calls one of its rooms."""
    logging.getLogger("murank" if room is None else f"murank.{room}").warning("%s", plain(text))


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode()


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
