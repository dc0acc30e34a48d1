"""Sockets: an address, or a file that its owner alone reaches; and connections that say nothing."""

import asyncio
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from murank._exceptions import InputError, OutputError

_BACKLOG = 256
MOST_CONNECTIONS = 512
HEAD_SECONDS = 10.0  # from a connection to the end of its first request's head
BODY_SECONDS = 30.0  # from there to the end of its body
READ_SECONDS = 30.0  # that an answer too large for the buffers may wait to be read


def listen_at(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises InputError and OutputError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror or error}") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OutputError(
            f"cannot listen at {host} port {port}: {error.strerror}; name another --port"
        ) from error
    return listener


def listen_in(path: Path) -> socket.socket:
    """Return a socket at a path, its owner's alone. One that nobody listens at is replaced.

    Raises OutputError.
    """
    try:
        if path.exists() or path.is_symlink():
            _remove_left_over(path)
        return _bound(path)
    except OSError as error:
        raise OutputError(f"--uds {path}: {error.strerror or error}") from error


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _remove_left_over(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise OutputError(f"--uds {path} is there already, and no socket: name another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise OutputError(f"--uds {path}: another service listens there")
    path.unlink()


def check_certificate(certificate: Path, key: Path) -> None:
    """Raise InputError unless these are a certificate and its key."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"--ssl-certfile {certificate}, --ssl-keyfile {key}: {error}") from error


class ImpatientProtocol(H11Protocol):
    """HTTP of clients that must come to the point: silence costs a connection, not the service."""

    _timer: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    _seen: Any = None  # the request whose head has come

    def connection_made(self, transport: Any) -> None:
        """Take in a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._wait_for(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Let the time of a head begin with its first bytes; between requests uvicorn's counts."""
        if self._timer is None and self._is_between:
            self._wait_for(HEAD_SECONDS)
        super().data_received(data)

    def handle_events(self) -> None:
        """Let the time of a body begin with the end of a head, and end with the body."""
        super().handle_events()
        if not self._is_between and self.cycle is not self._seen:
            self._seen = self.cycle
            self._stop_waiting()
            if self.cycle.more_body:
                self._wait_for(BODY_SECONDS)

    def pause_writing(self) -> None:
        """Wait for a client that does not read, so long and no longer."""
        super().pause_writing()
        self._reading = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        self._stop_reading()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        self._stop_reading()
        super().connection_lost(exc)

    @property
    def _is_between(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait_for(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_between or self.cycle.more_body:
            self.transport.abort()
