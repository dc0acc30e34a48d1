"""What a route asks of its caller, and how it waits for the worker."""

import asyncio
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from murank.gallery.gallery import Gallery
from murank.service.access import Role
from murank.service.image_values import NotThere
from murank.service.problems import ClientLeft
from murank.service.service_state import ServiceState
from murank.worker.work import Answer

T = TypeVar("T")
_bearer = HTTPBearer(auto_error=False, description="A token of --token-file, where there is one.")
_Given = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def state_of(request: Request) -> ServiceState:
    """Return the service's."""
    state: ServiceState = request.app.state.service
    return state


# Dependencies are asynchronous, so that none of them costs a way to another thread and back.
async def _state(request: Request) -> ServiceState:
    return state_of(request)


async def may_read(request: Request, _given: _Given) -> None:
    """Refuse whoever has no token, where one is wanted."""
    _check(request, "read")


async def may_administer(request: Request, _given: _Given) -> None:
    """Refuse whoever has no admin token, where one is wanted."""
    _check(request, "admin")


def _check(request: Request, wanted: Role) -> None:
    tokens = state_of(request).tokens
    if tokens is None:
        return
    role = tokens.role_of(request.headers.get("authorization"))
    if role is None:
        raise HTTPException(401, "a token is wanted", {"WWW-Authenticate": "Bearer"})
    if wanted == "admin" and role != "admin":
        raise HTTPException(403, "this token may read, and this is for admin tokens")


async def gallery_of(request: Request) -> Gallery:
    """Return the gallery, or refuse."""
    gallery = state_of(request).gallery
    if gallery is None:
        raise NotThere("there is no gallery: start the service with --gallery")
    return gallery


State = Annotated[ServiceState, Depends(_state)]
TheGallery = Annotated[Gallery, Depends(gallery_of)]
Reads = Depends(may_read)
Administers = Depends(may_administer)


async def answered(request: Request, answer: Answer[T]) -> T:
    """Wait for a worker's answer; where the client leaves, cancel it."""
    waiting: asyncio.Future[T] = asyncio.wrap_future(answer)
    leaving: asyncio.Future[None] = asyncio.create_task(_left(request))
    try:
        both: list[asyncio.Future[Any]] = [waiting, leaving]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientLeft
        return waiting.result()
    finally:
        leaving.cancel()
        if not answer.done():
            answer.cancel()
        state_of(request).metrics.queue_seconds.observe(answer.waited)


async def _left(request: Request) -> None:
    message: Any = {}
    while message.get("type") != "http.disconnect":
        message = await request.receive()
