"""A service in this process, on a port of its own, for clients that are real."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from murank import Engine, Gallery, Worker
from murank.service.access import Names
from murank.service.app import make_app
from murank.service.audit import Audit
from murank.service.listening import ImpatientProtocol
from murank.service.service_state import ServiceState

_WAIT = 30.0  # seconds after which a test has failed


@contextmanager
def served(
    engine: Engine, gallery: Gallery, listener: socket.socket | None = None
) -> Iterator[tuple[str, ServiceState]]:
    """Serve at an address, or where `listener` listens; yield its URL and its state."""
    host = None if listener is not None else "127.0.0.1"
    listener = listener or socket.create_server(("127.0.0.1", 0))
    with Worker(engine, gallery) as worker:
        state = ServiceState(worker, "engine", None, Audit(None), is_warm=True)
        config = uvicorn.Config(
            make_app(state, Names.of(host)), http=ImpatientProtocol, ws="none", lifespan="off",
            log_config=None, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        end = time.monotonic() + _WAIT
        while not server.started:
            assert time.monotonic() < end, "it does not start"
            time.sleep(0.01)
        try:
            port = 0 if host is None else listener.getsockname()[1]
            yield f"http://127.0.0.1:{port}/", state
        finally:
            server.should_exit = True
            thread.join(_WAIT)
