"""The application: routes, errors in one shape, and the guard around them."""

from typing import Any

from fastapi import FastAPI

from murank._version import __version__
from murank.service import gallery_routes, rerank_routes, state_routes
from murank.service.access import Names
from murank.service.guard import Guard
from murank.service.problems import add_handlers
from murank.service.service_state import ServiceState


def make_app(state: ServiceState, names: Names) -> FastAPI:
    """Return the ASGI application of a service."""
    # No pages of documentation: they load scripts from elsewhere.
    app = FastAPI(title="murank", version=__version__, docs_url=None, redoc_url=None)
    app.openapi = _Schema(app)  # type: ignore[method-assign]
    app.state.service = state
    for module in (rerank_routes, gallery_routes, state_routes):
        app.include_router(module.router)
    add_handlers(app)
    app.add_middleware(Guard, state=state, names=names)
    return app


class _Schema:
    """The served schema, without the shape of mistakes that is FastAPI's: ours is another."""

    def __init__(self, app: FastAPI) -> None:
        self._made = app.openapi

    def __call__(self) -> dict[str, Any]:
        schema = self._made()
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        return schema
