"""The shape that reranking services share, for crops of people."""

from fastapi import APIRouter, Request

from murank.service.allowed import Reads, State, answered
from murank.service.image_values import image_bytes, image_text
from murank.service.problems import documented
from murank.service.shapes import RerankBody, Reranked, RerankedItem, RerankMeta

router = APIRouter(dependencies=[Reads])
_CODES = documented(400, 401, 403, 404, 413, 415, 429, 503)


@router.post("/v1/rerank", responses=_CODES, summary="Rank images by how likely they show the same")
@router.post("/v2/rerank", responses=_CODES, include_in_schema=False)
@router.post("/rerank", responses=_CODES, include_in_schema=False)
async def rerank(request: Request, state: State, body: RerankBody) -> Reranked:
    """Candidate matches of a query image, best first; a person decides whether one is."""
    query = image_bytes(body.query, "query", state.gallery)
    documents = [
        image_bytes(one, f"documents[{place}]", state.gallery)
        for place, one in enumerate(body.documents)
    ]
    deadline = body.deadline_ms if body.deadline_ms is not None else state.deadline_ms
    found = await answered(request, state.worker.rank(query, documents, deadline_ms=deadline))
    if found.partial:
        state.metrics.partial.inc()
    seen = [one for one in found if one.mu is not None]
    unseen = sorted((one for one in found if one.mu is None), key=lambda one: one.corpus_id)
    results = [
        RerankedItem(
            index=one.corpus_id, mu=one.mu, relevance_score=0.0 if one.mu is None else 1 - one.mu,
            document=_echoed(body.documents[one.corpus_id]) if body.return_documents else None,
        )
        for one in (*seen, *unseen)[: body.top_n]
    ]  # fmt: skip
    meta = RerankMeta(partial=found.partial, scored=len(found.scored))
    return Reranked(
        id=request.state.request_id, model=body.model or state.name, results=results, meta=meta
    )


def _echoed(document: object) -> object:
    if isinstance(document, dict) and isinstance(document.get("id"), str):
        return {"id": document["id"]}
    return {"image": image_text(document, "document")}
