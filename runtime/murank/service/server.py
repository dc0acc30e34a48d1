"""The process: it starts, serves, keeps the gallery in order, and stops without losing anything."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from murank.machine.process import leave
from murank.service.access import Names
from murank.service.app import make_app
from murank.service.listening import ImpatientProtocol
from murank.service.log_lines import warn
from murank.service.service_state import ServiceState

_MAINTAIN_EACH = 60.0  # seconds
_LOOK_EACH = 0.05
_RELATE_EACH = 5.0
_RELATE_MS = 20.0  # that a query may have to wait for it
_SWITCH = 0.001
_AT_LAST = 15.0  # seconds, beyond the grace, to end what is written
_UNREADY = 1.0  # seconds to end in before it was ready: nobody was answered as yet
_TERMINATED = 143


@dataclass(frozen=True)
class Transport:
    """How requests come in."""

    listener: socket.socket
    names: Names
    certificate: Path | None = None
    key: Path | None = None


class _Server(uvicorn.Server):
    """Uvicorn's, with signals left to us: it would raise them again at the end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def serve(state: ServiceState, transport: Transport, *, grace: float) -> threading.Timer:
    """Serve until SIGTERM or SIGINT; then end running answers within `grace` seconds.

    Returns what ends the process if closing worker and gallery takes too long: to be cancelled.
    """
    # The worker's thread decodes images while this one answers: neither waits long for the other.
    sys.setswitchinterval(_SWITCH)
    app = make_app(state, transport.names)
    tls: dict[str, Any] = {
        "ssl_certfile": transport.certificate and str(transport.certificate),
        "ssl_keyfile": transport.key and str(transport.key),
    }
    config = uvicorn.Config(
        app, http=ImpatientProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=30,
        timeout_graceful_shutdown=1, **tls,
    )  # fmt: skip
    return asyncio.run(_serve(state, _Server(config), transport.listener, grace))


def _ending(
    state: ServiceState, grace: float, numbers: Sequence[signal.Signals]
) -> threading.Timer:
    """Return what ends the process if nothing else does: soon, if a signal came while compiling."""
    if numbers and not (state.is_warm or state.in_progress):
        end = threading.Timer(_UNREADY, leave, (numbers[0], None))
    else:
        end = threading.Timer(grace + _AT_LAST, _end_anyway)
    end.daemon = True
    return end


def _end_anyway() -> None:
    warn(
        f"it did not end within {_AT_LAST:.0f} s of its grace, and is ended as a power cut would: "
        "what was acknowledged is on the disk"
    )
    os._exit(_TERMINATED)


async def _serve(
    state: ServiceState, server: _Server, listener: socket.socket, grace: float
) -> threading.Timer:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    numbers: list[signal.Signals] = []

    def stop_by(number: signal.Signals) -> None:
        numbers.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_by, number)
    tasks = [asyncio.create_task(one(state)) for one in (_warm, _maintain, _relate)]
    running = asyncio.create_task(server.serve([listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    state.is_draining = True  # refused from now on, with a reason
    end_anyway = _ending(state, grace, numbers)
    end_anyway.start()
    end = loop.time() + grace
    while state.in_progress and loop.time() < end:
        await asyncio.sleep(_LOOK_EACH)
    server.should_exit = True
    await running
    for task in (*tasks, stopping):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return end_anyway


async def _warm(state: ServiceState) -> None:
    """Compile kernels, and have first runs done, before anybody waits for them."""
    try:
        await asyncio.wrap_future(state.worker.do(_compile))
        await asyncio.wrap_future(state.worker.warm())
    except Exception as error:  # noqa: BLE001  whatever it is, it is not ready
        state.trouble = f"kernels cannot be compiled, or the engine does not answer: {error}"
        warn(state.trouble)
    else:
        state.is_warm = True


def _compile() -> None:
    from murank_kernels._compile_all import compile_all

    compile_all()


async def _maintain(state: ServiceState) -> None:
    """Retention, unfinished erasures, a new alignment: in quiet moments, beside the worker."""
    while state.gallery is not None:
        await asyncio.sleep(_MAINTAIN_EACH)
        try:
            told = partial(state.audit.erased, by="retention")
            await asyncio.to_thread(state.gallery.maintain, told)
        except Exception as error:  # noqa: BLE001  the next time may be better
            warn(f"keeping the gallery in order: {error}")


async def _relate(state: ServiceState) -> None:
    """Ask the MLLM about tracks among themselves while nobody asks it anything."""
    gallery, worker = state.gallery, state.worker
    while state.relates and gallery is not None:
        stats, pause = worker.stats(), _LOOK_EACH
        if not (stats.waiting or stats.running):
            try:
                related = await asyncio.wrap_future(
                    worker.do(lambda: gallery.relate(deadline_ms=_RELATE_MS))
                )
                pause = _LOOK_EACH if related.tracks_left else _RELATE_EACH
            except Exception as error:  # noqa: BLE001  the next time may be better
                warn(f"relating tracks: {error}")
                pause = _MAINTAIN_EACH
        await asyncio.sleep(pause)
