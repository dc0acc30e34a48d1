"""What operators and the page ask: health, readiness, metrics, models."""

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from murank.service.allowed import Reads, State
from murank.service.page import read_page
from murank.service.problems import documented
from murank.service.shapes import Health, Model, Models, Readiness

router = APIRouter()
_PAGE, _POLICY = read_page()
_CODES = documented(403)


@router.get("/healthz", responses=_CODES, summary="Whether the process answers")
async def healthz() -> Health:
    """It does."""
    return Health()


@router.get(
    "/readyz", summary="Whether it takes work", response_model=Readiness,
    responses={**_CODES, 503: {"model": Readiness}},
)  # fmt: skip
async def readyz(state: State) -> JSONResponse:
    """200, or 503 with the reasons."""
    reasons = state.reasons()
    ready = Readiness(ready=not reasons, reasons=reasons)
    return JSONResponse(ready.model_dump(), 503 if reasons else 200)


@router.get("/metrics", summary="For Prometheus", response_class=Response, responses=_CODES)
async def metrics(state: State) -> Response:
    """Counters, gauges and histograms."""
    text = await run_in_threadpool(state.metrics.text, state.worker, state.gallery)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/models", responses=documented(401, 403, 503), dependencies=[Reads])
async def models(state: State) -> Models:
    """The engine that is served."""
    engine = state.worker.engine
    return Models(
        data=[Model(id=state.name, sha256=engine.sha256, precision=engine.manifest.precision)]
    )


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})
