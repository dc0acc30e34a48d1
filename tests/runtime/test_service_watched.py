"""What the owner of a service is told: is it ready, its metrics, its log, its audit."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from prometheus_client.parser import text_string_to_metric_families
from service_parts import as_url, crops, filled, service

from murank.service.server import _maintain, _warm

PICTURE = as_url(crops(1)[0])
ANYBODY = "nobody-may-see-this"


def test_readiness_has_its_reasons(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, state = served
    assert client.get("/readyz").json() == {"ready": True, "reasons": []}
    state.is_warm = False
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    state.is_draining = True
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert len(answer.json()["reasons"]) == 3
    assert client.get("/healthz").json() == {"status": "ok"}
    refused = client.post("/v1/rerank", {"query": PICTURE, "documents": [PICTURE]})
    assert (refused.status_code, refused.json()["type"]) == (503, "unavailable")


def test_a_worker_that_has_ended_is_a_reason(served: Any) -> None:
    client, state = served
    state.worker.close()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "thread" in answer.json()["reasons"][0]


def test_kernels_that_cannot_be_compiled_are_a_reason(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, state = served
    state.is_warm = False

    def fails() -> None:
        raise OSError("no compiler")

    monkeypatch.setattr("murank.service.server._compile", fails)
    asyncio.run(_warm(state))
    assert "no compiler" in client.get("/readyz").json()["reasons"][0]


def test_metrics_can_be_read_and_name_nobody(served: Any) -> None:
    client, _ = served
    filled(client)
    client.post("/v1/gallery/search", {"id": "shot-3"})
    client.get("/v1/gallery/rows/shot-3")
    client.get("/shot-3/unknown")
    client.delete("/v1/gallery/rows/shot-3")
    families = {
        one.name: one
        for one in text_string_to_metric_families(client.get("/metrics").text)
    }  # fmt: skip
    assert set(families) == {
        "murank_requests", "murank_request_seconds", "murank_queue_seconds", "murank_queue_depth",
        "murank_stage_seconds", "murank_pairs", "murank_partial", "murank_gallery_rows",
        "murank_gallery_bytes", "murank_erasures_pending", "murank_build_info",
    } | {name for name in families if name.endswith("_created")}  # fmt: skip
    labels = json.dumps([sample.labels for one in families.values() for sample in one.samples])
    assert "shot-3" not in labels
    assert families["murank_gallery_rows"].samples[0].value == 11
    assert families["murank_pairs"].samples[0].value == 11
    codes = {
        (one.labels["route"], one.labels["code"]): one.value
        for one in families["murank_requests"].samples
        if one.name == "murank_requests_total"
    }
    assert codes["/v1/gallery/rows/{id}", "200"] == 2
    assert codes["none", "404"] == 1


def test_a_line_a_request_and_nobody_in_it(served: Any, capfd: pytest.CaptureFixture[str]) -> None:
    client, _ = served
    filled(client)
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    capfd.readouterr()
    client.get("/v1/gallery/rows/shot-3", headers={"traceparent": trace})
    client.get("/v1/gallery/rows/shot-3", headers={"traceparent": ANYBODY})
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line.get("traceparent") for line in lines] == [trace, None]
    for line in lines:
        assert (line["method"], line["route"], line["code"]) == (
            "GET", "/v1/gallery/rows/{id}", 200,
        )  # fmt: skip
        assert "shot-3" not in json.dumps(line)


def test_the_audit_says_who_did_what_and_to_nobody_by_name(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.write_text("kept\n")
    with service(tmp_path, audit=file) as (client, _):
        filled(client, subject="guest")
        client.post("/v1/gallery/search", {"id": "shot-3", "cameras": [1, 2]})
        client.delete("/v1/gallery/rows/shot-3")
        client.post("/v1/gallery/erase", {"subject": "guest"})
        client.post("/v1/gallery/search", {"id": "shot-3"})
    first, *lines = file.read_text().splitlines()
    assert first == "kept"
    found = [json.loads(line) for line in lines]
    assert [(one["action"], one["by"]) for one in found] == [
        ("search", ["id"]), ("erase", "ids"), ("erase", "subject"), ("search", ["id"]),
    ]  # fmt: skip
    assert [one.get("rows") for one in found] == [None, 1, 11, None]
    assert found[0]["cameras"] == [1, 2]
    assert "shot-3" not in "".join(lines)
    assert "guest" not in "".join(lines)


def test_what_retention_erases_is_in_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murank.service.server._MAINTAIN_EACH", 0.01)
    file = tmp_path / "audit.log"
    with service(tmp_path, audit=file) as (client, state):
        filled(client, subject="guest")
        gallery = cast("Any", state.gallery)
        gallery.settings = dataclasses.replace(gallery.settings, retention=3600.0)
        monkeypatch.setattr(gallery, "align", lambda: 1 / 0)  # what comes afterwards fails

        async def maintained() -> None:
            task = asyncio.create_task(_maintain(state))
            while not file.read_text():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # it looks again: there is nothing more to tell
            task.cancel()

        asyncio.run(asyncio.wait_for(maintained(), 60))
        assert client.get("/v1/gallery/stats").json()["rows"] == 0
    (line,) = map(json.loads, file.read_text().splitlines())
    del line["time"]
    assert line == {"action": "erase", "by": "retention", "rows": 12, "complete": True}
