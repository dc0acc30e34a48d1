"""`murank gallery`: a gallery that lives in one file: add, search, erase, keep in order."""

import argparse

from murank.cli import gallery_add, gallery_relate, gallery_search, gallery_upkeep
from murank.cli.parser import Parser

_MODULES = (gallery_add, gallery_search, gallery_relate, gallery_upkeep)


def parser() -> Parser:
    """Return the parser of this verb, which has verbs of its own."""
    result = Parser(
        prog="murank gallery",
        description="A gallery of tracks in one file, for an appliance: rows come and go, are "
        "searched with filters and a deadline, and are really erased.",
    )
    verbs = result.add_subparsers(
        title="verbs", dest="verb", metavar="VERB", required=True, parser_class=Parser
    )
    for module in _MODULES:
        for name, (text, add_options) in module.VERBS.items():
            add_options(verbs.add_parser(name, help=text, description=text))
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    module = next(module for module in _MODULES if args.verb in module.VERBS)
    code: int = module.run(args)
    return code
