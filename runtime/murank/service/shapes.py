"""What is asked and answered, as the served schema has it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_ROWS = 256  # in one request
MOST_DOCUMENTS = 1000
MOST_TRACKS = 2000  # that one search ranks; with as many neighbours a second of CPU
MOST_NEIGHBOURS = 100  # k1, k2 and their like
Text = Annotated[str, Field(max_length=1000)]
Image = str | dict[str, Any]
Moment = float | str
Value = str | int | float | bool


Texts = Annotated[list[Text], Field(max_length=1000)]
Attributes = Annotated[dict[Text, Value], Field(max_length=64)]


def _field(wanted: str, **bounds: Any) -> Any:
    """Say what a field must be: in the schema, and to those who sent something else."""
    return Field(description=wanted, **bounds)


_A_NAME = "a text of up to 1000 characters"
_EACH = "or a list of one an item"
_A_DEADLINE = "a number of milliseconds above 0"
_AN_IMAGE = (
    "an image: a data URL, base64, or an object with image, content or id; URLs are never fetched"
)
_A_MOMENT = "seconds since the epoch, or a text like 2026-11-29T18:00:00+01:00"
_VALUES = "an object of up to 64 names with texts, numbers or truth values"


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

    model: Annotated[Text | None, _field(_A_NAME)] = None
    query: Annotated[Image, _field(_AN_IMAGE)]
    documents: Annotated[
        list[Image],
        _field(f"a list of 1 to {MOST_DOCUMENTS} images", min_length=1, max_length=MOST_DOCUMENTS),
    ]
    top_n: Annotated[int | None, _field("a whole number of 1 or more", ge=1)] = None
    return_documents: Annotated[bool | None, _field("true or false")] = None
    deadline_ms: Annotated[float | None, _field(_A_DEADLINE, gt=0)] = None


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

    crops: Annotated[
        list[Image] | None, _field(f"a list of up to {MOST_ROWS} images", max_length=MOST_ROWS)
    ] = None
    features: Annotated[
        list[list[float]] | None,
        _field(f"a list of up to {MOST_ROWS} rows of numbers", max_length=MOST_ROWS),
    ] = None
    camera: Annotated[int | list[int], _field(f"a whole number of 0 or more, {_EACH}")]
    time: Annotated[Moment | list[Moment], _field(f"{_A_MOMENT}, {_EACH}")]
    track: Annotated[
        Text | int | list[Text | int | None] | None,
        _field(f"{_A_NAME} or a whole number, {_EACH}"),
    ] = None
    id: Annotated[Text | list[Text | None] | None, _field(f"{_A_NAME}, {_EACH}")] = None
    subject: Annotated[Text | list[Text | None] | None, _field(f"{_A_NAME}, {_EACH}")] = None
    attributes: Annotated[Attributes | list[Attributes], _field(f"{_VALUES}, {_EACH}")] = {}


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

    crop: Annotated[
        Image | Annotated[list[Image], Field(max_length=16)] | None,
        _field(f"{_AN_IMAGE}; or a list of up to 16 of one person"),
    ] = None
    feature: Annotated[list[float] | None, _field("a list of numbers")] = None
    id: Annotated[Text | None, _field(_A_NAME)] = None
    cameras: Annotated[
        Annotated[list[int], Field(max_length=1000)] | int | None,
        _field("a whole number of 0 or more, or a list of up to 1000 of them"),
    ] = None
    since: Annotated[Moment | None, _field(_A_MOMENT)] = None
    until: Annotated[Moment | None, _field(_A_MOMENT)] = None
    exclude_tracks: Annotated[Texts | Text, _field(f"{_A_NAME}, or a list of up to 1000")] = []
    attributes: Annotated[Attributes, _field(_VALUES)] = {}
    camera: Annotated[int | None, _field("a whole number of 0 or more")] = None
    top_k: Annotated[int, _field(f"a whole number of 1 to {MOST_TRACKS}", le=MOST_TRACKS)] = 20
    candidates: Annotated[int, _field("a whole number of 0 to 1000", le=1000)] = 20
    shortlist: Annotated[int, _field(f"a whole number of 1 to {MOST_TRACKS}", le=MOST_TRACKS)] = 500
    method: Annotated[
        Literal["ca-jaccard", "k-reciprocal", "simple", "none"],
        _field("ca-jaccard, k-reciprocal, simple or none"),
    ] = "ca-jaccard"
    parameters: Annotated[
        dict[Text, Value],
        _field(
            f"an object of the method's parameters, counts of up to {MOST_NEIGHBOURS}",
            max_length=32,
        ),
    ] = {}
    deadline_ms: Annotated[float | None, _field(_A_DEADLINE, gt=0)] = None

    @field_validator("parameters")
    @classmethod
    def _are_few(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if any(one > MOST_NEIGHBOURS for one in parameters.values() if isinstance(one, int)):
            raise ValueError
        return parameters


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

    ids: Annotated[list[Text] | None, _field("a list of up to 10,000 texts", max_length=10_000)] = (
        None
    )
    track: Annotated[Text | None, _field(_A_NAME)] = None
    subject: Annotated[Text | None, _field(_A_NAME)] = None


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
