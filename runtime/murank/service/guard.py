"""Around every request: its id, its size, whom it may come from, and the line in the log."""

import re
import time
import uuid
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from murank.service.access import Names
from murank.service.log_lines import log, warn_of_bug
from murank.service.problems import problem
from murank.service.service_state import ServiceState

MOST_BYTES = 8 << 20  # of a body
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
_DIGITS = 12  # of a length: more are no length
_OPEN = ("/", "/healthz", "/readyz", "/metrics", "/openapi.json")  # without a token
_ALWAYS = ("/healthz", "/readyz", "/metrics")  # also while it is being stopped


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, state: ServiceState, names: Names) -> None:
        self._app, self._state, self._names = app, state, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # As it came: an encoded slash belongs to an id.
        scope["path"] = scope.get("raw_path", quote(scope["path"]).encode()).decode("latin-1")
        headers, start = Headers(scope=scope), time.perf_counter()
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        sent = _Sent(send, request_id)
        self._state.in_progress += 1
        try:
            refused = self._refusal(scope, headers)
            if refused is None:
                await self._app(scope, _Bounded(receive), sent)
            else:
                await problem(request_id, *refused)(scope, receive, sent)
        except Exception as error:  # noqa: BLE001  a bug: told to the operator, not the caller
            warn_of_bug(error)
            if not sent.begun:
                text = "this is a bug in murank: see the service's standard error"
                await problem(request_id, 500, text)(scope, receive, sent)
        finally:
            self._state.in_progress -= 1
            seconds = time.perf_counter() - start
            self._note(scope, headers, sent.code, seconds)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[Any, ...] | None:
        host, origin = headers.get("host"), headers.get("origin")
        if not self._names.allow(host):
            return 403, "this service does not go by that name: see --server-name"
        if origin is not None and not self._names.allow_origin(origin, host, scope["scheme"]):
            return 403, "pages of other origins may not ask: see --server-name"
        if self._state.is_draining and scope["path"] not in _ALWAYS:
            return 503, "the service is being stopped"
        tokens = self._state.tokens
        given = headers.get("authorization")
        is_open = tokens is None or scope["path"] in _OPEN or tokens.role_of(given) is not None
        if not is_open:  # said before a body is read
            return 401, "a token is wanted", {"WWW-Authenticate": "Bearer"}
        if scope["method"] in ("POST", "PUT", "PATCH"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return 415, "send JSON, as Content-Type: application/json"
        length = headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > _DIGITS or int(length) > MOST_BYTES):
            return 413, _TOO_LARGE
        return None

    def _note(self, scope: Scope, headers: Headers, code: int, seconds: float) -> None:
        # Never a path: it may name somebody.
        route = getattr(scope.get("route"), "path_format", "none")
        self._state.metrics.requests.labels(route, str(code)).inc()
        self._state.metrics.request_seconds.labels(route).observe(seconds)
        line: dict[str, Any] = {
            "request_id": scope["state"]["request_id"], "method": scope["method"],
            "route": route, "code": code, "seconds": round(seconds, 4),
        }  # fmt: skip
        trace = headers.get("traceparent", "")
        if _TRACE.fullmatch(trace):
            line["traceparent"] = trace
        log(**line)


_TOO_LARGE = f"the body must be at most {MOST_BYTES >> 20} MiB: send fewer or smaller images"


class _Sent:
    """Sends an answer, with what belongs to every one, and remembers its code."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.code, self.begun = 499, False  # until there is one: the client left

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code, self.begun = message["status"], True
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


class _Bounded:
    """Receives a body, up to the bound, whatever its head said."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._left = receive, MOST_BYTES

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, _TOO_LARGE)
        return message
