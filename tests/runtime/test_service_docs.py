"""docs/service.md has the tables that the served schema has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("fastapi")
from murank.service import gallery_routes, rerank_routes, state_routes
from murank.service.access import Names
from murank.service.allowed import may_administer, may_read
from murank.service.app import make_app
from murank.service.audit import Audit
from murank.service.problems import TYPES
from murank.service.service_state import ServiceState

PAGE = Path(__file__).parents[2] / "docs" / "service.md"
WHO = {may_read: "read", may_administer: "admin", None: "all"}
WORD = re.compile(r"`([^`]+)`")


def rows(first: str) -> list[list[str]]:
    """The cells of the rows that begin with what `first` matches."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [cells for cells in found if re.fullmatch(first, cells[0])]


@pytest.fixture(scope="module")
def state() -> ServiceState:
    """Of a service that nobody asks anything."""
    return ServiceState(cast("Any", None), "engine", None, Audit(None))


@pytest.fixture(scope="module")
def schema(state: ServiceState) -> dict[str, Any]:
    return make_app(state, Names.of("127.0.0.1")).openapi()


def roles() -> dict[tuple[str, str], Any]:
    """What each route asks of its caller."""
    found: dict[tuple[str, str], Any] = {}
    for module in (rerank_routes, gallery_routes, state_routes):
        for route in cast("list[Any]", module.router.routes):
            (asked,) = [one.dependency for one in route.dependencies] or [None]
            found |= {(method, route.path_format): asked for method in route.methods}
    return found


def test_paths_and_bodies(schema: dict[str, Any]) -> None:
    served = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            body: list[str] = []
            if "requestBody" in operation:
                of = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                body = list(schema["components"]["schemas"][of.rpartition("/")[2]]["properties"])
            served[method.upper(), path] = (body, WHO[roles()[method.upper(), path]])
    told = {
        (method, path.strip("`")): (WORD.findall(body), who)
        for method, path, who, body in rows("[A-Z]+")
    }
    assert told == served


def test_codes(schema: dict[str, Any]) -> None:
    told = {int(code): WORD.findall(kind)[0] for code, kind, _ in rows(r"\d{3}")}
    assert told == TYPES
    documented = {
        int(code)
        for methods in schema["paths"].values()
        for operation in methods.values()
        for code in operation["responses"]
    }
    assert documented - {200} <= set(told)


def test_metrics(state: ServiceState) -> None:
    kept = {
        f"`{one.name}_total`" if one.type == "counter" else f"`{one.name}`"
        for one in state.metrics.registry.collect()
    }
    assert {cells[0] for cells in rows("`murank_.*")} == kept
