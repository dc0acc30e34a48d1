"""`murank serve`: an engine and a gallery over HTTP."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from murank._exceptions import MachineError, UsageError
from murank.cli.engine_options import add_rare_running_options, add_running_options, running_of
from murank.cli.parser import Parser, check_needs, positive
from murank.engine.engine import Engine
from murank.folder.integrity import read_pinned
from murank.gallery import Gallery
from murank.gallery.ready_shots import KEEPS
from murank.machine.library import pip_install
from murank.worker.worker import QUEUE, Worker

if TYPE_CHECKING:
    from murank.service.access import Tokens
    from murank.service.server import Transport

_PORT, _GRACE = 8600, 10.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank serve",
        usage="murank serve ENGINE [--gallery FILE] [options]",
        description="Serve an engine, and a gallery, over HTTP to this machine: reranking, rows, "
        "search, erasure, metrics, and a page at /. Answers are candidate matches; a person "
        "decides.",
    )
    result.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    group = result.add_argument_group("gallery")
    group.add_argument("--gallery", metavar="FILE", type=Path, help="made where there is none")
    group.add_argument("--keep", choices=KEEPS, default="crops", help="of new tracks (crops)")
    group.add_argument(
        "--retention", type=_duration, metavar="T", help="how long a shot stays, like 72h or 30d"
    )
    group.add_argument(
        "--relate", action="store_true", help="in idle time, ask the MLLM about tracks, too"
    )
    group = result.add_argument_group("where it listens")
    group.add_argument("--host", default="127.0.0.1", metavar="ADDR", help="(127.0.0.1)")
    group.add_argument("--port", type=_port, default=_PORT, metavar="N", help=f"({_PORT})")
    group.add_argument("--uds", type=Path, metavar="PATH", help="instead: a socket file")
    group.add_argument(
        "--server-name", action="append", default=[], metavar="NAME", help="that callers use, too"
    )
    group.add_argument("--ssl-certfile", type=Path, metavar="FILE", help="for https")
    group.add_argument("--ssl-keyfile", type=Path, metavar="FILE", help="of the certificate")
    group = result.add_argument_group("who may ask")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help="lines of read TOKEN or admin TOKEN; wanted beyond this machine",
    )  # fmt: skip
    group.add_argument("--insecure", action="store_true", help="open to all who reach it")
    group.add_argument("--audit", type=Path, metavar="FILE", help="lines of searches and erasures")
    group = result.add_argument_group("load")
    group.add_argument("--deadline-ms", type=float, metavar="X", help="of queries that name none")
    group.add_argument(
        "--queue", type=positive, default=QUEUE, metavar="N", help=f"that may wait ({QUEUE})"
    )
    group.add_argument(
        "--grace", type=float, default=_GRACE, metavar="S",
        help=f"seconds that running answers have when it is stopped ({_GRACE:.0f})",
    )  # fmt: skip
    add_running_options(result.add_argument_group("engine"))
    add_rare_running_options(result.add_argument_group("rarely needed"))
    return result


def run(args: argparse.Namespace) -> int:
    """Serve until it is stopped; return the exit code."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if not find_spec(name)]
    if missing:
        raise MachineError(f"murank serve needs {missing[0]}: {pip_install('serve')}")
    _check(args)
    from murank.service.audit import Audit
    from murank.service.listening import check_certificate
    from murank.service.server import serve
    from murank.service.service_state import ServiceState

    tokens = _tokens(args)
    if args.ssl_certfile is not None:
        check_certificate(args.ssl_certfile, args.ssl_keyfile)
    with ExitStack() as stack:
        transport = stack.enter_context(_transport(args))
        audit = Audit(args.audit)
        stack.callback(audit.close)
        worker = stack.enter_context(_worker(args))
        name = args.engine.resolve().name
        state = ServiceState(worker, name, tokens, audit, args.deadline_ms, args.relate)
        if args.relate:
            worker.engine.need_scorer()
        _say_open(args, tokens is not None)
        end_anyway = serve(state, transport, grace=args.grace)
        worker.close(grace=1.0)
    end_anyway.cancel()
    return 0


def _check(args: argparse.Namespace) -> None:
    if (args.ssl_certfile is None) != (args.ssl_keyfile is None):
        raise UsageError("--ssl-certfile and --ssl-keyfile belong together")
    check_needs(args, {"retention": ("gallery",), "relate": ("gallery",)})
    if not 0 <= args.grace < 3600:
        raise UsageError("--grace must be a number of seconds from 0 to 3600")
    if args.deadline_ms is not None and not 0 < args.deadline_ms < float("inf"):
        raise UsageError("--deadline-ms must be a number above 0")
    from murank.service.access import is_loopback

    is_near = args.uds is not None or is_loopback(args.host)
    if not is_near and args.token_file is None and not args.insecure:
        raise UsageError(
            f"--host {args.host} is reached from other machines: name a --token-file, or say "
            "--insecure"
        )


def _tokens(args: argparse.Namespace) -> "Tokens | None":
    from murank.service.access import Tokens

    return None if args.token_file is None else Tokens.read(args.token_file)


@contextmanager
def _transport(args: argparse.Namespace) -> "Iterator[Transport]":
    from murank.service.access import Names
    from murank.service.listening import listen_at, listen_in
    from murank.service.server import Transport

    host = None if args.uds is not None else args.host
    listener = listen_at(args.host, args.port) if args.uds is None else listen_in(args.uds)
    names = Names.of(host, args.server_name)
    try:
        yield Transport(listener, names, args.ssl_certfile, args.ssl_keyfile)
    finally:
        listener.close()
        if args.uds is not None:
            args.uds.unlink(missing_ok=True)


@contextmanager
def _worker(args: argparse.Namespace) -> Iterator[Worker]:
    _, sha256 = read_pinned(args.engine, args.sha256)
    with ExitStack() as stack:
        engine = stack.enter_context(
            Engine.from_pretrained(args.engine, sha256=sha256, **running_of(args))
        )
        gallery = None
        if args.gallery is not None:
            gallery = stack.enter_context(
                Gallery.open(args.gallery, engine, keep=args.keep, retention=args.retention)
            )
        yield stack.enter_context(Worker(engine, gallery, queue=args.queue))


def _say_open(args: argparse.Namespace, has_tokens: bool) -> None:
    from murank.service.log_lines import warn

    scheme = "https" if args.ssl_certfile is not None else "http"
    host = f"[{args.host}]" if ":" in args.host else args.host
    where = f"{scheme}://{host}:{args.port}" if args.uds is None else str(args.uds)
    who = (
        "tokens are wanted" if has_tokens else "open to everybody who reaches it, erasure included"
    )
    warn(f"{where}: {who}")


def _port(text: str) -> int:
    value = positive(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"must be 1 to 65535, got {text!r}")
    return value


def _duration(text: str) -> timedelta:
    unit = _UNITS.get(text[-1:])
    try:
        value = float(text[:-1])
        if unit is None or not 0 < value < 1e6:
            raise ValueError
        return timedelta(**{unit: value})
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be like 90m, 72h or 30d, got {text!r}") from None
