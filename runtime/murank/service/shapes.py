"""What is asked and answered, as the served schema has it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_ROWS = 256  # in one request
MOST_DOCUMENTS = 1000
Text = Annotated[str, Field(max_length=1000)]
Image = Annotated[
    str | dict[str, Any],
    Field(
        description="A data URL, base64, {image}, {content: [{type: image_url, ...}]}, or {id} of "
        "a stored shot. URLs are never fetched."
    ),
]
Moment = Annotated[
    float | str, Field(description="Seconds since the epoch, or ISO 8601 with a time zone.")
]
Value = str | int | float | bool


Texts = Annotated[list[Text], Field(max_length=1000)]
Attributes = Annotated[dict[Text, Value], Field(max_length=64)]


class Body(BaseModel):
    """A body of ours: a word that is none of its own is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        _check_unicode(value)
        return value


class RerankBody(BaseModel):
    """What reranking services are asked; words of others' are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: Text | None = None
    query: Image
    documents: Annotated[list[Image], Field(min_length=1, max_length=MOST_DOCUMENTS)]
    top_n: Annotated[int | None, Field(ge=1)] = None
    return_documents: bool | None = None
    deadline_ms: Annotated[float | None, Field(gt=0)] = None


class RerankedItem(BaseModel):
    """One candidate match."""

    index: int
    relevance_score: float  # 1 - mu; 0 where the MLLM did not see it
    mu: float | None
    document: Any = None


class RerankMeta(BaseModel):
    """How it came about."""

    partial: bool
    scored: int


class Reranked(BaseModel):
    """Documents, best first; those that the deadline left out last."""

    id: str
    model: str
    results: list[RerankedItem]
    meta: RerankMeta


class AddBody(Body):
    """Arguments of Gallery.add: one value for all, or a list of one an item."""

    crops: Annotated[list[Image] | None, Field(max_length=MOST_ROWS)] = None
    features: Annotated[list[list[float]] | None, Field(max_length=MOST_ROWS)] = None
    camera: int | list[int]
    time: Moment | list[Moment]
    track: Text | int | list[Text | int | None] | None = None
    id: Text | list[Text | None] | None = None
    subject: Text | list[Text | None] | None = None
    attributes: Attributes | list[Attributes] = {}


class AddedItem(BaseModel):
    """What became of one item."""

    id: str | None
    status: Literal["added", "known", "refused"]
    reason: str | None = None


class Added(BaseModel):
    """A status an item, in their order."""

    results: list[AddedItem]


class SearchBody(Body):
    """Arguments of Gallery.search."""

    crop: Image | Annotated[list[Image], Field(max_length=16)] | None = None
    feature: list[float] | None = None
    id: Text | None = None
    cameras: Annotated[list[int], Field(max_length=1000)] | int | None = None
    since: Moment | None = None
    until: Moment | None = None
    exclude_tracks: Texts | Text = []
    attributes: Attributes = {}
    camera: int | None = None
    top_k: Annotated[int, Field(le=10_000)] = 20
    candidates: Annotated[int, Field(le=1000)] = 20
    shortlist: Annotated[int | None, Field(le=10_000)] = 500
    method: Literal["ca-jaccard", "k-reciprocal", "simple", "none"] = "ca-jaccard"
    parameters: Annotated[dict[Text, Value | None], Field(max_length=32)] = {}
    deadline_ms: Annotated[float | None, Field(gt=0)] = None


class FoundItem(BaseModel):
    """One track before one camera: a candidate match."""

    rank: int
    id: str
    camera: int
    track: str | None
    first: float
    last: float
    distance: float
    encoder_distance: float
    mu: float | None
    shot: str | None
    can_ask: bool


class Found(BaseModel):
    """Candidate matches, best first."""

    matches: list[FoundItem]
    scored: int
    candidates: int
    partial: bool
    generation: int
    pairs: int
    seconds: dict[str, float]


class EraseBody(Body):
    """Arguments of Gallery.erase: one of them."""

    ids: Annotated[list[Text] | None, Field(max_length=10_000)] = None
    track: Text | None = None
    subject: Text | None = None


class Erased(BaseModel):
    """The receipt; keep it to let `murank gallery verify` look for remains."""

    ids: list[str]
    rows: int
    vectors: int
    crops: int
    vision_tokens: int
    pairs: int
    complete: bool
    alignment_rebuilt: bool
    generation: int


class StoredRow(BaseModel):
    """One stored shot, without its feature."""

    id: str
    camera: int
    time: float
    track: str | None
    subject: str | None
    attributes: dict[str, Value]
    has_picture: bool


class Stats(BaseModel):
    """How large the gallery is."""

    rows: int
    tracks: int
    pictures: int
    cameras: list[int]
    bytes_on_disk: int
    bytes_in_memory: int
    generation: int
    alignment: str
    alignment_due: bool
    erasures_pending: bool
    damaged_tracks: int
    pairs: int
    tracks_to_relate: int


class Model(BaseModel):
    """An engine that is served."""

    id: str
    object: Literal["model"] = "model"
    sha256: str
    precision: str


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """Whether the process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether it takes work; if not, why not."""

    ready: bool
    reasons: list[str]


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: str
    request_id: str


def _check_unicode(value: Any) -> None:
    """Raise ValueError for a text that cannot be written down: half of a pair of surrogates."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for key, one in value.items():
            _check_unicode(key)
            _check_unicode(one)
    elif isinstance(value, list):
        for one in value:
            _check_unicode(one)
