"""`murank gallery`: a gallery that lives in one file: add, search, erase, keep in order."""

import argparse
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.cli import gallery_add, gallery_relate, gallery_search, gallery_upkeep
from murank.cli.parser import Parser

_MODULES = (gallery_add, gallery_search, gallery_relate, gallery_upkeep)


class VerbParser(Parser):
    """The parser of one of these verbs: images may stand before, between and after options."""

    _inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all: what is left over is an error of this verb, not of `murank gallery`."""
        if self._inside:
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            found, left = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return found, left


def parser() -> Parser:
    """Return the parser of this verb, which has verbs of its own."""
    result = Parser(
        prog="murank gallery",
        description="A gallery of tracks in one file, for an appliance: rows come and go, are "
        "searched with filters and a deadline, and are really erased.",
    )
    verbs = result.add_subparsers(
        title="verbs", dest="verb", metavar="VERB", required=True, parser_class=VerbParser
    )
    for module in _MODULES:
        for name, (text, add_options) in module.VERBS.items():
            add_options(verbs.add_parser(name, help=text, description=text))
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    engine = getattr(args, "engine", None)
    if engine is not None and Path(engine).is_file():
        raise UsageError(f"{engine} is a file: ENGINE, an engine's folder, comes before FILE")
    module = next(module for module in _MODULES if args.verb in module.VERBS)
    code: int = module.run(args)
    return code
