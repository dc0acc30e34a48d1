"""The library's messages name its arguments; here they are said as the flags of a verb."""

import argparse
import contextlib
import re
from collections.abc import Iterator, Mapping

from murank._exceptions import MurankError

_VALUE = r"'[\w.-]*'|True|None|[\w.-]+"
# Never within a path, a quoted name or a longer word.
_SAID_TWICE = re.compile(rf"(--[a-z][\w-]*(?: (?:{_VALUE}))?) \((\w+)(=(?:{_VALUE}))?\)")
_WITH_VALUE = re.compile(rf"(?<![\w/\\.'\"-])(\w+)=({_VALUE})(?![\w/\\])")
_ASIDE = re.compile(rf" \(\w+=(?:{_VALUE})\)")
_SUBJECT = re.compile(r"^(\w+)(?= (?:must|is|needs|are|and)\b)")
_OBJECT = re.compile(r"(?<= )((?:pass|smaller|larger) )([a-z]+_\w+)\b")


@contextlib.contextmanager
def errors_in_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Iterator[None]:
    """Let what is raised inside name the flags of the verb that was called."""
    try:
        yield
    except MurankError as error:
        if error.args and isinstance(error.args[0], str):
            flags = flags_of(parser, args)
            error.args = (in_flags(error.args[0], flags), *error.args[1:])
        raise


def flags_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, str]:
    """Return the flags of a verb, and of its own verb that was called, by their arguments."""
    flags: dict[str, str] = {}
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
    """Return a message with `top_k must be`, `method='none'` and the like in a verb's flags."""

    def twice(found: re.Match[str]) -> str:
        flag, name, value = found.groups()
        return flag if value or flag[2:].replace("-", "_") == name else found[0]

    def with_value(found: re.Match[str]) -> str:
        flag, value = flags.get(found[1]), found[2].strip("'")
        if flag is None:
            return found[0]
        return flag if value == "True" else f"{flag} {value}"

    text = _SAID_TWICE.sub(twice, text)
    text = _ASIDE.sub("", _WITH_VALUE.sub(with_value, text))
    text = _SUBJECT.sub(lambda found: flags.get(found[0], found[0]), text)
    return _OBJECT.sub(lambda found: found[1] + flags.get(found[2], found[2]), text)
