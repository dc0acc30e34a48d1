"""Which options of which verbs write, and which of them are stopped at every step."""

import argparse
from collections.abc import Callable, Iterator
from typing import TypeVar

from murank.cli import VERBS, _module

Test = TypeVar("Test", bound=Callable[..., object])
COVERED: set[str] = set()  # "verb option", as `written` is given them


def written(*options: str) -> Callable[[Test], Test]:
    """Note what a test stops at every step: a verb, a space, and the option that says where."""

    def noted(test: Test) -> Test:
        COVERED.update(options)
        return test

    return noted


def options_with_values() -> Iterator[str]:
    """Every option of every verb that could name a file or a folder."""
    for verb in VERBS:
        yield from _of(verb, _module(verb).parser())


def _of(verb: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _of(f"{verb} {name}", below)
        elif action.nargs != 0 and action.choices is None and _could_be_a_path(action):
            yield f"{verb} {(action.option_strings or [action.dest])[-1]}"


def _could_be_a_path(action: argparse.Action) -> bool:
    try:
        return action.type is None or action.type("a/b.png") is not None  # type: ignore[operator]
    except (ValueError, argparse.ArgumentTypeError):
        return False
