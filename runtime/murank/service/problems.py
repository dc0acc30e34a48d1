"""From what went wrong to a code, one sentence, and nothing of another request."""

import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from murank._exceptions import InputError, MachineError, OutputError, Overloaded
from murank.checks.text import plain
from murank.service.image_values import NotThere
from murank.service.shapes import Problem

TYPES: Mapping[int, str] = {
    400: "invalid_request", 401: "unauthorized", 403: "forbidden", 404: "not_found",
    405: "method_not_allowed", 409: "conflict", 413: "too_large", 415: "unsupported_media_type",
    429: "overloaded", 499: "client_left", 500: "internal", 503: "unavailable",
    507: "insufficient_storage",
}  # fmt: skip


class ClientLeft(Exception):  # noqa: N818  nobody is there to be told
    """Whoever asked does not wait for the answer."""


def documented(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return these codes as the schema has them."""
    return {code: {"model": Problem, "description": TYPES[code]} for code in sorted(codes)}


def problem(
    request_id: str, code: int, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an answer that says what is wrong."""
    content = {"message": plain(message), "type": TYPES[code], "request_id": request_id}
    return JSONResponse(content, code, dict(headers or {}))


def add_handlers(app: FastAPI) -> None:
    """Let every error have our shape."""
    for kind in (
        InputError, OutputError, MachineError, RequestValidationError, HTTPException, ClientLeft,
        OverflowError, UnicodeError,
    ):  # fmt: skip
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    code, message, headers = _told(error)
    return problem(request.state.request_id, code, message, headers)


def _told(error: Exception) -> tuple[int, str, Mapping[str, str]]:
    headers: Mapping[str, str] = {}
    if isinstance(error, HTTPException):
        code = error.status_code if error.status_code in TYPES else 400
        return code, str(error.detail), error.headers or {}
    if isinstance(error, RequestValidationError):
        return 400, _first_of(error), headers
    if isinstance(error, Overloaded):
        return 429, str(error), {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, (OverflowError, UnicodeError)):
        return 400, "a number is too large, or a text is none", headers
    if isinstance(error, NotThere):
        return 404, str(error), headers
    if isinstance(error, InputError):
        return 400, str(error), headers
    if isinstance(error, OutputError):
        is_reader = "open for reading" in str(error)
        return (409 if is_reader else 507), str(error), headers
    if isinstance(error, MachineError):
        return 503, str(error), headers
    return 499, "the client has left", headers


def _first_of(error: RequestValidationError) -> str:
    """Say where the first mistake is, and what was expected; never what was there."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return f"{place or 'the body'}: {first['msg']}"
