"""`murank adapt`: mine hard pairs, train a LoRA on them."""

import argparse

from murank.cli.parser import Parser
from murank_export.adapt import mine_cli, train_cli

VERBS = {
    "mine": (mine_cli, "hard pairs of a labelled set of images, by its features"),
    "train": (train_cli, "LoRA of an MLLM, on mined pairs"),
}


def parser() -> Parser:
    """Return the parser of this verb, which has verbs of its own."""
    result = Parser(
        prog="murank adapt",
        description="Adapt an MLLM to person re-identification, on the build machine: mine hard "
        "pairs with an encoder's features, then train a LoRA on them. `murank export --adapter` "
        "takes what comes out.",
    )
    verbs = result.add_subparsers(
        title="verbs", dest="verb", metavar="VERB", required=True, parser_class=Parser
    )
    for name, (module, text) in VERBS.items():
        module.add_options(verbs.add_parser(name, help=text, description=module.__doc__))
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    module, _ = VERBS[args.verb]
    code: int = module.run(args)
    return code
