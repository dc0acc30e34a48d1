"""From what went wrong to a code, one sentence, and nothing of another request."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from murank._exceptions import InputError, MachineError, OutputError, Overloaded
from murank.checks.text import plain, shown
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
    if isinstance(error, RequestValidationError):
        return problem(request.state.request_id, 400, _first_of(error, request.scope["endpoint"]))
    code, message, headers = _told(error)
    return problem(request.state.request_id, code, message, headers)


def _told(error: Exception) -> tuple[int, str, Mapping[str, str]]:
    headers: Mapping[str, str] = {}
    if isinstance(error, HTTPException):
        code = error.status_code if error.status_code in TYPES else 400
        is_theirs = error.detail in _THEIRS and code in _OURS
        return code, _OURS[code] if is_theirs else str(error.detail), error.headers or {}
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


# What FastAPI and Starlette say of their own.
_THEIRS = {"Not Found", "Method Not Allowed", "There was an error parsing the body"}
_OURS = {
    400: "the body must be JSON in UTF-8, not nested too deeply",
    404: "nothing is at this path: /openapi.json lists what there is",
    405: "this path does not take this method: /openapi.json lists those it takes",
}


def _first_of(error: RequestValidationError, endpoint: Callable[..., Any]) -> str:
    """Say what the first field that is wrong must be; never what was there."""
    first = error.errors()[0]
    _, *place = first["loc"]  # the body
    if first["type"] == "json_invalid":
        return f"the body must be JSON: it is none from character {place[0]} on"
    body: type[BaseModel] = endpoint.__annotations__["body"]
    if not place:
        return "the body must be a JSON object, its texts Unicode"
    field = body.model_fields.get(place[0])
    if field is None:
        return f"{shown(place[0])} is no field of this body: it has {', '.join(body.model_fields)}"
    if first["type"] == "missing":
        return f"{place[0]} is missing: it must be {field.description}"
    item = "".join(f"[{one}]" for one in place[1:] if isinstance(one, int))
    where = f"{place[0]}{item} is none of these: " if item else ""
    return f"{where}{place[0]} must be {field.description}"
