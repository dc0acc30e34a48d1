"""The library's messages name its arguments; here they are said as the flags of a verb."""

import argparse
import contextlib
import logging
import re
from collections.abc import Iterator, Mapping

from murank._exceptions import MurankError

_VALUE = r"'[\w.-]*'|True|None|[\w.-]+"
# Never within a path, a quoted name or a longer word.
_SAID_TWICE = re.compile(rf"(--[a-z][\w-]*(?: (?:{_VALUE}))?) \((\w+)(=(?:{_VALUE}))?\)")
_WITH_VALUE = re.compile(rf"(?<![\w/\\.'\"-])(\w+)=({_VALUE})(?![\w/\\])")
_WITHOUT_VALUE = re.compile(r"(?<![\w/\\.'\"-])(\w+)=(?=[\s,;:)]|$)")
_ASIDE = re.compile(rf" \(\w+=(?:{_VALUE})\)")
_SUBJECT = re.compile(r"^(\w+)(?= (?:must|is|needs|are|and)\b)")
_OBJECT = re.compile(r"(?<= )((?:pass|smaller|larger) )([a-z]+_\w+)\b")

OF_OTHERS = {name: f"--{name}" for name in ("providers", "products", "plans", "format")}
"""Flags that a message may name whatever the verb: how an engine runs, what a ranking is."""

_OF_READING = {"bits": "--bits"}  # of all verbs that decode images

_LOGS = ("murank", "murank.images")  # a log's filter sees nothing of those below it


@contextlib.contextmanager
def said_in_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Iterator[None]:
    """Let what is raised or logged inside name the flags of the verb that was called."""
    filtered = _InFlags(flags_of(parser, args))
    logs = [logging.getLogger(name) for name in _LOGS]
    for log in logs:
        log.addFilter(filtered)
    try:
        yield
    except MurankError as error:
        if error.args and isinstance(error.args[0], str):
            error.args = (in_flags(error.args[0], filtered.flags), *error.args[1:])
        raise
    finally:
        for log in logs:
            log.removeFilter(filtered)


class _InFlags(logging.Filter):
    """Says what is logged in flags."""

    def __init__(self, flags: Mapping[str, str]) -> None:
        super().__init__()
        self.flags = flags

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = in_flags(record.getMessage(), self.flags), ()
        return True


def flags_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, str]:
    """Return the flags of a verb, and of its own verb that was called, by their arguments."""
    flags = dict(OF_OTHERS)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner = action.choices.get(getattr(args, action.dest, ""))
            flags |= {} if inner is None else flags_of(inner, args)
        elif action.option_strings:
            name = action.dest.removeprefix("option_")
            flags |= dict.fromkeys((name, f"{name}s"), action.option_strings[-1])
    if "kernels" in flags:
        flags["device"] = flags["kernels"]
    return flags


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return a message with `top_k must be`, `method='none'`, `recall=` in a verb's flags."""

    def twice(found: re.Match[str]) -> str:
        flag, name, value = found.groups()
        return flag if value or flag[2:].replace("-", "_") == name else found[0]

    def with_value(found: re.Match[str]) -> str:
        flag, value = flags.get(found[1]), found[2].strip("'")
        if flag is None:
            return found[0]
        return flag if value == "True" else f"{flag} {value}"

    def without_value(found: re.Match[str]) -> str:
        return flags.get(found[1], found[0])

    text = _SAID_TWICE.sub(twice, text)
    text = _ASIDE.sub("", _WITH_VALUE.sub(with_value, text))
    text = _WITHOUT_VALUE.sub(without_value, text)
    text = _SUBJECT.sub(lambda found: flags.get(found[0], found[0]), text)
    return _OBJECT.sub(lambda found: found[1] + flags.get(found[2], found[2]), text)


def reason_in_flags(reason: str) -> str:
    """Return why an image was left out, which is printed rather than raised, in a verb's flags."""
    return in_flags(reason, _OF_READING)
