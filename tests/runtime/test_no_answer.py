"""NaN or infinity from the MLLM: which image, by which graph."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from search_parts import make_engine, make_images

from murank import Engine, InputError, Searcher
from murank.engine.no_answer import NoAnswerError, first_no_number
from murank.images import Preprocessing, ReadyImage
from murank.jobs.engine_work import CANDIDATE, EngineWork
from murank.jobs.image_contents import Content
from murank.jobs.job_units import AskUnit

MINIATURE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
WHITE = np.full((4, 2, 3), 255, np.uint8)  # of which the vision tower by hand makes NaN
GREY = make_images(5)


@pytest.fixture
def white(tmp_path: Path) -> Path:
    file = tmp_path / "white.png"
    Image.fromarray(WHITE).save(file)
    return file


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_where_the_first_is(bad: float) -> None:
    logits = np.zeros((2, 3, 2), np.float32)
    assert first_no_number(logits) is None
    assert first_no_number(logits[:, :0]) is None
    logits[1, 2, 0] = logits[1, 1, 1] = bad
    assert first_no_number(logits) == (1, 1)


Ask = Callable[[Engine, Any, list[Any]], object]
ASKED: dict[str, Ask] = {
    "mu": lambda engine, query, some: engine.mu(query, some),
    "swapped": lambda engine, query, some: engine.mu(query, some, order="swapped"),
    "both": lambda engine, query, some: engine.mu(query, some, order="both"),
    "rank": lambda engine, query, some: engine.rank(query, some),
    "in time": lambda engine, query, some: engine.rank(query, some, deadline_ms=1e9),
    "predict": lambda engine, query, some: engine.predict([(query, one) for one in some]),
}


@pytest.mark.parametrize("how", ASKED)
def test_an_image_of_a_call(how: str, white: Path) -> None:
    with pytest.raises(NoAnswerError, match=r"candidates(\[0\])?\[2\]: .*vision\.onnx"):
        ASKED[how](make_engine(), GREY[0], [*GREY[1:3], WHITE, GREY[3]])
    with pytest.raises(NoAnswerError, match=r"white\.png: .*vision\.onnx"):
        ASKED[how](make_engine(), GREY[0], [GREY[1], white])
    with pytest.raises(NoAnswerError, match=r"white\.png: .*vision\.onnx"):
        ASKED[how](make_engine(), white, GREY[1:])
    with pytest.raises(NoAnswerError, match=r"quer(y|ies\[0\]): .*vision\.onnx"):
        ASKED[how](make_engine(), WHITE, GREY[1:])


def test_several_queries(white: Path) -> None:
    engine = make_engine()
    with pytest.raises(NoAnswerError, match=r"candidates\[1\]\[0\]: .*vision\.onnx"):
        engine.mu_many(GREY[:2], [GREY[2:4], [WHITE, GREY[4]]])
    with pytest.raises(NoAnswerError, match=r"white\.png: "):
        engine.mu_many([GREY[0], white], [GREY[2:4], GREY[3:5]])


@pytest.mark.parametrize("answer", [(np.inf, 0), (np.nan, 0), (-np.inf, np.inf)])
@pytest.mark.parametrize("how", ASKED)
def test_an_answer(how: str, answer: tuple[float, float]) -> None:
    """Infinity against a number would pass for mu = 1."""
    engine = make_engine()
    decoder, right = cast("Any", engine.scorer).decoder, cast("Any", engine.scorer).decoder.logits

    def logits(prefix: Any, tokens: NDArray[Any]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = right(prefix, tokens)
        mine = GREY[2].transpose(2, 0, 1).ravel()
        queried = (prefix.values[0] == mine).all(axis=(1, 2, 3))
        found[(tokens == mine).all(axis=(2, 3, 4)) | queried[:, None]] = answer
        return found

    decoder.logits = logits
    expected = r"quer(y|ies\[0\]) and candidates(\[0\])?\[[01]\]: .*decoder\.onnx"
    with pytest.raises(NoAnswerError, match=expected):
        ASKED[how](engine, GREY[0], GREY[1:3])


def test_images_of_a_search(white: Path) -> None:
    engine = make_engine()
    features = engine.embed(GREY)
    searcher = Searcher(engine, features, [*GREY[:4], white], candidates=5)
    for search in (searcher.search, lambda one: searcher.search_many([one, GREY[1]])):
        with pytest.raises(NoAnswerError, match=r"white\.png: .*vision\.onnx"):
            search(GREY[0])
    with pytest.raises(NoAnswerError, match=r"white\.png: .*vision\.onnx"):
        searcher.warm([4])


def test_pairs_of_a_job_are_named_once_their_paths_are_known() -> None:
    engine = make_engine()
    lazy = SimpleNamespace(
        loaded=engine, is_loaded=True, providers=lambda *_: {"decoder": ["CPUExecutionProvider"]}
    )
    how = Preprocessing(4, 2)
    contents = [
        Content(bytes([i] * 32), ReadyImage(np.ascontiguousarray(image.transpose(2, 0, 1)), how))
        for i, image in enumerate([GREY[0], WHITE, GREY[1]])
    ]
    pairs = np.array([[0, 1], [0, 2]], np.int32)
    digests = tuple(one.digest for one in contents)
    unit = AskUnit((0,), ("a", "b", "c"), digests, pairs, {"given": np.ones(2, bool)})
    answer = EngineWork(cast("Any", lazy))._ask(unit, contents)
    said = answer.orders["given"]
    assert np.isnan(said.mu).tolist() == [True, False]
    assert said.reasons.keys() == {0}
    assert said.reasons[0].startswith(f"{CANDIDATE}: ")
    assert "vision.onnx" in said.reasons[0]


def test_tokens_that_are_no_numbers_are_not_kept_on_disk(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = Path(shutil.copytree(MINIATURE, tmp_path / "engine"))
    engine = Engine.from_pretrained(
        folder, parts=["scorer"], providers="cpu", threads=1, cache_dir=tmp_path / "cache",
        vision_cache_mb=0,
    )  # fmt: skip
    scorer = cast("Any", engine.scorer)
    run = scorer.vision.session.run

    def broken(inputs: Any, outputs: Any) -> list[Any]:
        (values,) = run(inputs, outputs)
        array = values.numpy()
        array[inputs["images"].min(axis=(1, 2, 3)) == 255] = np.inf

        class Value:
            def numpy(self) -> NDArray[Any]:
                return cast("NDArray[Any]", array)

        return [Value()]

    scorer.vision.session.run = broken
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 32, 3), np.uint8)
    white = np.full((64, 32, 3), 255, np.uint8)
    with pytest.raises(InputError, match=r"candidates\[0\]\[1\]: .*onnx/vision\.onnx"):
        engine.mu(images[0], [images[1], white])
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 2
