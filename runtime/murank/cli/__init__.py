"""The `murank` command: one verb is one module, loaded when it is called.

Imports all rooms; no room imports it.
"""

import argparse
import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from murank._exceptions import EXIT_OK, MachineError, UsageError
from murank._version import __version__
from murank.cli.ends import how_it_ends
from murank.cli.in_flags import said_in_flags
from murank.cli.output import gathered_notes, say_error
from murank.cli.parser import Parser, options_of
from murank.cli.streams import check_output, flush_output, guarded_streams, tell
from murank.machine.library import library, pip_install, told_imports
from murank.machine.process import stop_on_signals
from murank_kernels.loops.compiling import told_of_compiling

__all__ = ["main"]

GROUPS = {
    "on the build machine": {
        "adapt": "mine hard pairs, and fine-tune an MLLM on them with LoRA",
        "export": "checkpoints to an engine folder",
        "plan": "what an engine will need on a device: roofline, memory, predicted latency",
        "world": "draw a synthetic data set of person crops",
    },
    "on the device": {
        "doctor": "what this machine has, what of it works, and what to install",
        "build": "an engine folder to TensorRT plans for this device (optional)",
        "inspect": "whether an engine is whole, what is in it, whether it answers as at export",
        "cache": "what a --cache-dir holds of images, and its erasure",
    },
    "use": {
        "score": "images to features, candidates and mu, in a job folder",
        "rerank": "re-rank a gallery for every query: a job folder, or features",
        "search": "the images of a gallery nearest to one query, in a given time",
        "gallery": "a gallery that lives in one file: add, search, erase, verify",
        "serve": "an engine and a gallery over HTTP, for neighbours on the box",
        "align": "what cameras add to their images, learnt without labels, to a file",
    },
    "measure": {
        "evaluate": "every re-ranker with and without mu; or features, distances, a ranking",
        "calibrate": "temperature and operating threshold of an engine, from labelled pairs",
        "bench": "latency and throughput of an engine, as MLPerf's scenarios measure them",
    },
}
VERBS = {verb: text for verbs in GROUPS.values() for verb, text in verbs.items()}
_NAMED = 4  # verbs in a message
# Of verbs that need more than murank itself.
EXTRAS = {
    "adapt": ("export",), "export": ("cpu", "export"), "plan": ("plan",), "serve": ("cpu", "serve")
}  # fmt: skip
# The build machine's verbs live in its own package, which the runtime never imports by itself.
ELSEWHERE = {
    "adapt": "murank_export.adapt.adapt_cli",
    "export": "murank_export.engine.export_cli",
    "plan": "murank_export.plan.plan_cli",
    "world": "murank_export.world.world_cli",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a bug in murank raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with guarded_streams():
        try:
            check_output()
            with gathered_notes():
                code = _run(arguments)
            flush_output()
            return code
        except (Exception, KeyboardInterrupt) as error:
            end = how_it_ends(error)
            if end is None:
                raise
            if end.said:
                tell(f"murank: {end.said}")
            return end.code


def _run(arguments: list[str]) -> int:
    try:
        _check_first(arguments)
        verb = _parser().parse_args(arguments[:1]).verb
        module = _module(verb)
        with hints(verb, arguments[1:]):
            parsed = module.parser().parse_args(arguments[1:])
    except SystemExit:  # --help or --version has been printed; errors raise UsageError
        return EXIT_OK
    stop_on_signals()  # there may be something to put in order from here on
    with (
        told_imports(_install(verb)),
        said_in_flags(module.parser(), parsed),
        _told_of_compiling(parsed),
    ):
        code: int = module.run(parsed)
    return code


def _told_of_compiling(parsed: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Say why nothing is heard for a while, where anything is said before the end."""
    if getattr(parsed, "quiet", False) or getattr(parsed, "json", False):
        return contextlib.nullcontext()
    return told_of_compiling(
        lambda: say_error("compiling kernels that this machine has not run before ...")
    )


def _check_first(arguments: list[str]) -> None:
    """Raise UsageError if options stand before the verb."""
    first = arguments[0] if arguments else ""
    if not first.startswith("-") or first in ("-h", "--help", "--version"):
        return
    verb = next((word for word in arguments if word in VERBS), "VERB")
    raise UsageError(
        f"{first} stands before the verb: murank {verb} comes first, then its options (see murank "
        "--help)"
    )


def _install(verb: str) -> str:
    extras = EXTRAS.get(verb)
    return "pip install murank" if extras is None else pip_install(*extras)


def _module(verb: str) -> Any:
    if verb in ELSEWHERE:
        library(
            "murank_export", install=f"{verb} runs on the build machine, where all of murank is"
        )
    with told_imports(_install(verb)):
        return importlib.import_module(ELSEWHERE.get(verb, f"murank.cli.{verb}"))


@contextlib.contextmanager
def hints(verb: str, arguments: Sequence[str]) -> Iterator[None]:
    """Let what is wrong with a verb's arguments say which other verbs have an option of that name.

    Those of the same group come first.
    """
    try:
        yield
    except UsageError as error:
        own = options_of(_module(verb).parser())
        words = (word.split("=")[0] for word in arguments if word.startswith("--"))
        unknown = next((word for word in words if word != "--" and word not in own), None)
        having = [] if unknown is None else _verbs_with(unknown, verb)
        if not having:
            raise
        named = ", ".join([*having[:_NAMED], *["..."] * (len(having) > _NAMED)])
        raise UsageError(f"{error}; {unknown} is of murank {named}") from error


def _verbs_with(option: str, verb: str) -> list[str]:
    near = next(verbs for verbs in GROUPS.values() if verb in verbs)
    having = []
    for other in [*near, *(name for name in VERBS if name not in near)]:
        with contextlib.suppress(MachineError):  # the build side is not here
            parser = _module(other).parser()
            # What one verb takes first, by its place, another may be asked for by its name.
            first = {f"--{action.dest}" for action in parser._actions if not action.option_strings}
            if option in options_of(parser) | first:
                having.append(other)
    return having


def _parser() -> Parser:
    width = max(map(len, VERBS))
    groups = "\n\n".join(
        "\n".join([f"{group}:", *(f"  {name:<{width}}  {text}" for name, text in verbs.items())])
        for group, verbs in GROUPS.items()
    )
    parser = Parser(
        prog="murank",
        usage="murank VERB ...",
        description=f"Re-ranking for person re-identification.\n\n{groups}\n\n"
        "murank VERB --help tells more",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"murank {__version__}")
    parser.add_argument("verb", choices=tuple(VERBS), help=argparse.SUPPRESS)
    return parser
