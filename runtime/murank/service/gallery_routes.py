"""The gallery: rows in and out, search, erasure. Bodies have the arguments of Gallery by name."""

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import unquote

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from murank._exceptions import InputError
from murank.gallery.gallery import Gallery
from murank.gallery.gallery_result import Erasure
from murank.service.access import fingerprint
from murank.service.allowed import Administers, Reads, State, TheGallery, answered
from murank.service.image_values import NotThere, image_bytes
from murank.service.problems import documented
from murank.service.service_state import ServiceState
from murank.service.shapes import (
    AddBody,
    Added,
    AddedItem,
    EraseBody,
    Erased,
    Found,
    SearchBody,
    Stats,
    StoredRow,
)

router = APIRouter(prefix="/v1/gallery")
_READ = documented(400, 401, 403, 404, 503)
_POST = documented(400, 401, 403, 404, 409, 413, 415, 429, 503, 507)


@router.post("/rows", responses=_POST, dependencies=[Administers], summary="Add shots")
async def add(request: Request, state: State, gallery: TheGallery, body: AddBody) -> Added:
    """Those that are stored when it answers stay through a power cut; a status each."""
    items = body.model_dump(exclude={"crops", "features", "time"}, exclude_unset=True)
    crops = None
    if body.crops is not None:
        crops = [
            image_bytes(one, f"crops[{place}]", gallery) for place, one in enumerate(body.crops)
        ]
    if body.features is not None:
        items["features"] = _matrix(body.features)
    items["time"] = _moments(body.time)
    results = await answered(request, state.worker.add(crops, **items))
    return Added(results=[AddedItem(**vars(one)) for one in results])


async def _decoded(id: str) -> str:  # noqa: A002
    """An id as a path has it, percent-encoded; / in it is %2F, or as it is where that is clear."""
    try:
        return unquote(id, errors="strict")
    except UnicodeDecodeError:
        raise InputError("id must be percent-encoded UTF-8") from None


ShotId = Annotated[str, Depends(_decoded)]


# Ids may have slashes; so the longer path comes first.
@router.get(
    "/rows/{id:path}/crop", dependencies=[Reads], summary="Its picture", response_class=Response,
    responses={**_READ, 200: {"content": {"image/jpeg": {}}}},
)  # fmt: skip
async def crop(gallery: TheGallery, shot_id: ShotId) -> Response:
    """The JPEG that is kept."""
    kept = await run_in_threadpool(gallery.crop, shot_id)
    if kept is None:
        raise NotThere("no crop is kept of a shot with this id")
    return Response(kept, media_type="image/jpeg")


@router.get("/rows/{id:path}", responses=_READ, dependencies=[Reads], summary="One shot")
async def row(gallery: TheGallery, shot_id: ShotId) -> StoredRow:
    """What is stored of it, without its feature."""
    (found,) = await run_in_threadpool(gallery.get, shot_id)
    if found is None:
        raise NotThere("there is no shot with this id")
    return StoredRow(**vars(found))


@router.delete(
    "/rows/{id:path}", responses=_POST, dependencies=[Administers], summary="Erase one shot"
)
async def erase_row(request: Request, state: State, gallery: TheGallery, shot_id: ShotId) -> Erased:
    """As POST /v1/gallery/erase."""
    (found,) = await run_in_threadpool(gallery.get, shot_id)
    if found is None:
        raise NotThere("there is no shot with this id")
    return await _erased(request, state, gallery, {"ids": [shot_id]})


@router.post("/search", responses=_POST, dependencies=[Reads], summary="Where else was this person")
async def search(request: Request, state: State, gallery: TheGallery, body: SearchBody) -> Found:
    """Candidate matches, best first; a person decides whether one is."""
    query = body.model_dump(exclude={"crop", "feature", "since", "until"}, exclude_unset=True)
    query |= {name: _moments(getattr(body, name)) for name in ("since", "until")}
    if body.feature is not None:
        query["feature"] = _matrix([body.feature])[0]
    if body.crop is not None:
        several = isinstance(body.crop, list)
        crops: list[Any] = body.crop if isinstance(body.crop, list) else [body.crop]
        query["crop"] = [
            image_bytes(one, f"crop[{place}]" if several else "crop", gallery)
            for place, one in enumerate(crops)
        ]
    if query.get("deadline_ms") is None:
        query["deadline_ms"] = state.deadline_ms
    facts = {**_asked_by(request), **_filters(body)}
    await run_in_threadpool(state.audit.write, "search", **facts)  # it waits for the disk
    result = await answered(request, state.worker.search(**query))
    state.metrics.count_stages(result.seconds)
    if result.partial:
        state.metrics.partial.inc()
    return Found.model_validate(
        {**vars(result), "matches": [vars(one) for one in result.matches]}, strict=False
    )


@router.post("/erase", responses=_POST, dependencies=[Administers], summary="Erase for good")
async def erase(request: Request, state: State, gallery: TheGallery, body: EraseBody) -> Erased:
    """Shots by their ids, their track (of all cameras) or their subject."""
    return await _erased(request, state, gallery, body.model_dump(exclude_none=True))


@router.get("/stats", responses=_READ, dependencies=[Reads], summary="How large it is")
async def stats(gallery: TheGallery) -> Stats:
    """Its size, and what is due."""
    return Stats(**vars(await run_in_threadpool(gallery.stats)))


async def _erased(
    request: Request, state: ServiceState, gallery: Gallery, named: dict[str, Any]
) -> Erased:
    def do() -> Erasure:
        receipt = gallery.erase(**named)
        state.audit.erased(receipt, by=next(iter(named), None), **_asked_by(request))
        return receipt

    return Erased(**vars(await run_in_threadpool(do)))


def _asked_by(request: Request) -> dict[str, Any]:
    token = fingerprint(request.headers.get("authorization"))
    return {"request_id": request.state.request_id, "token": token}


def _filters(body: SearchBody) -> dict[str, Any]:
    """Return what a search was about, and nothing that names anybody."""
    by = [name for name in ("crop", "feature", "id") if getattr(body, name) is not None]
    return {"by": by, "cameras": body.cameras, "since": body.since, "until": body.until}


def _moments(value: Any) -> Any:
    """Turn texts into datetimes; whether they have a zone is the gallery's to say."""
    if isinstance(value, list):
        return [_moments(one) for one in value]
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
    except ValueError:
        raise InputError(
            "times must be seconds since the epoch, or like 2026-11-29T18:00:00+01:00"
        ) from None


def _matrix(rows: list[list[float]]) -> Any:
    try:
        with np.errstate(over="ignore"):
            return np.array(rows, np.float32)
    except (ValueError, OverflowError):
        raise InputError("features must be rows of numbers, all of one length") from None
