"""Token ids and positions of the prompt against transformers' own."""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_prompt import FullPrompt
from PIL import Image
from random_checkpoint import make_checkpoint, train_tokenizer
from real_data import TOKENIZER

from murank import InputError
from murank.prompt import AnswerWords, Layout, PromptTemplate, default_template, load_template
from murank_export.adapt.answers import find_answers
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.reference import ask
from murank_export.mllm.tokens import answer_ids, prompt_text, prompt_tokens

# The form of the released file (keys, numbered rules, a space before the first), in other words.
MUSE_STYLE = {
    "task_description": 'Two photos follow, marked "Query:" and "Candidate:". Is it one person? ',
    "rules": [" Go by these:", "1. clothes (e.g. colour)", "Never by these:", "1. background"],
    "response_format": 'Say "Yes" or "No".',
}


@pytest.fixture(scope="module", params=["small", "real"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Folder of a shrunken checkpoint, by family, with a small and with the real tokenizer."""
    if request.param == "real" and not TOKENIZER.exists():
        pytest.skip("the real tokenizer is not on this machine")

    @functools.cache
    def of(family: str) -> Path:
        folder = tmp_path_factory.mktemp("checkpoints") / family
        make_checkpoint(folder, family, tokenizer=TOKENIZER if request.param == "real" else None)
        return folder

    return of


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> Callable[[str], Checkpoint]:
    """A checkpoint as it is loaded, by family (shared: never change one)."""
    return functools.cache(lambda family: load_checkpoint(checkpoint(family)))


@pytest.mark.parametrize("layout", ["paper", "prefix_first"])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_a_prompt_file_gives_the_ids_of_the_chat_template(
    checkpoint: Callable[[str], Path],
    loaded: Callable[[str], Checkpoint],
    tmp_path: Path,
    family: str,
    layout: Layout,
) -> None:
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(MUSE_STYLE, indent=4))
    one = loaded(family)
    grid, _ = one.grid(None)
    tokens = prompt_tokens(one, load_template(file), layout)
    oracle = FullPrompt(checkpoint(family), family, MUSE_STYLE, layout, one.model)
    assert tokens.full(grid.num_tokens) == oracle.ids(grid.num_tokens)
    assert list(answer_ids(one.tokenizer)) == oracle.answers


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_positions_are_the_models_own(
    checkpoint: Callable[[str], Path],
    loaded: Callable[[str], Checkpoint],
    family: str,
    crops: list[Any],
) -> None:
    one = loaded(family)
    grid, _ = one.grid(None)
    tokens = prompt_tokens(one, default_template(), "paper")
    template = default_template().to_json()
    oracle = FullPrompt(checkpoint(family), family, template, "paper", one.model)
    inputs = oracle.inputs(crops[:2])
    inputs.pop("pixel_values")
    wanted, _ = one.model.model.get_rope_index(**inputs)
    found = torch.cat(tokens.positions(grid), 1)
    np.testing.assert_array_equal(found, wanted[:, 0])


def test_the_paper_layout_shares_little_and_prefix_first_most(
    loaded: Callable[[str], Checkpoint],
) -> None:
    paper, first = (
        prompt_tokens(loaded("qwen2_vl"), default_template(), layout)
        for layout in ("paper", "prefix_first")
    )
    assert len(first.behind) == 6  # end of image, end of turn, assistant header
    assert len(first.static) - len(paper.static) == len(paper.behind) - len(first.behind) + 1
    assert paper.between == first.between


def test_a_template_without_images_is_refused(loaded: Callable[[str], Checkpoint]) -> None:
    silent = replace(loaded("qwen2_vl"), chat_template="{{ messages[0]['role'] }}")
    with pytest.raises(InputError, match="put two images into the user turn"):
        prompt_tokens(silent, default_template(), "paper")


def test_image_size_must_be_whole_tokens(loaded: Callable[[str], Checkpoint]) -> None:
    assert loaded("qwen2_vl").grid((224, 112))[0].num_tokens == 32
    with pytest.raises(InputError, match="multiples of 28"):
        loaded("qwen2_vl").grid((256, 128))


LOWER = AnswerWords("yes", "no")
THINKING, THOUGHT = "<think>\n", "<think>\n\n</think>\n\n"


def with_words(one: Checkpoint, behind: str = "", *words: str) -> Checkpoint:
    """A checkpoint whose tokenizer knows some words, and whose answers begin `behind` something."""
    tokenizer = train_tokenizer([*[f"\n{word}" for word in words] * 50, THOUGHT])
    template = str(tokenizer.chat_template).replace("assistant\n", f"assistant\n{behind}")
    return replace(one, tokenizer=tokenizer, chat_template=template)


@pytest.mark.parametrize("behind", ["", THOUGHT])
def test_answers_of_a_templates_own(loaded: Callable[[str], Checkpoint], behind: str) -> None:
    one = with_words(loaded("qwen2_vl"), behind, "yes", "no", "match")
    template = replace(default_template(), answers=LOWER)
    text = prompt_text(one, template, "paper")
    assert text.endswith(f"assistant\n{behind}")
    vocabulary = one.tokenizer.get_vocab()
    wanted = (vocabulary["no"], vocabulary["yes"])
    assert answer_ids(one.tokenizer, LOWER, text) == wanted
    found = find_answers(one, LOWER)  # what a training asks for
    assert (found.first, found.length) == (wanted, 1)
    assert one.tokenizer.decode([found.end]) == "<|im_end|>"
    for words in (AnswerWords("match", "mismatch"), AnswerWords("yes", "no way")):
        with pytest.raises(InputError, match=words.different):
            answer_ids(one.tokenizer, words, text)


def test_a_model_that_thinks_first_is_refused(loaded: Callable[[str], Checkpoint]) -> None:
    one = with_words(loaded("qwen2_vl"), THINKING)
    with pytest.raises(InputError, match="thinks before it answers"):
        prompt_tokens(one, default_template(), "paper")


def test_a_system_turn_that_the_chat_template_drops(loaded: Callable[[str], Checkpoint]) -> None:
    template = replace(default_template(), system="Judge.")
    assert "<|im_start|>system\nJudge.<|im_end|>" in prompt_text(
        loaded("qwen2_vl"), template, "paper"
    )
    deaf = replace(
        loaded("qwen2_vl"),
        chat_template=loaded("qwen2_vl").chat_template.replace("in messages", "in messages[1:]"),
    )
    with pytest.raises(InputError, match="system"):
        prompt_text(deaf, template, "paper")


@pytest.mark.parametrize("layout", ["paper", "prefix_first"])
def test_the_rerankers_prompt_is_its_authors(
    loaded: Callable[[str], Checkpoint], layout: Layout
) -> None:
    """docs/export.md's file, against the turns that Qwen3-VL-Reranker's own program makes."""
    docs = Path(__file__).parents[2] / "docs" / "export.md"
    (block,) = re.findall(r"```json\n(.*?)```", docs.read_text(), re.DOTALL)
    template = PromptTemplate.from_json(json.loads(block))
    one = with_words(loaded("qwen3_vl"), "", "yes", "no")
    system = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".'
    )
    instruct, image = json.loads(block)["task_description"], {"type": "image"}
    assert instruct.startswith("<Instruct>: ")
    user = [instruct, "<Query>:", image, "\n<Document>:", image]
    content = [{"type": "text", "text": t} if isinstance(t, str) else t for t in user]
    turns = [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": content},
    ]
    text = one.tokenizer.apply_chat_template(
        turns, chat_template=one.chat_template, tokenize=False, add_generation_prompt=True
    )
    assert prompt_text(one, template, layout) == text
    ids = answer_ids(one.tokenizer, template.answers, text)
    assert one.tokenizer.convert_ids_to_tokens(list(ids)) == ["no", "yes"]


def test_the_share_of_the_answers_is_that_of_the_whole_softmax(
    checkpoint: Callable[[str], Path], loaded: Callable[[str], Checkpoint], crops: list[Any]
) -> None:
    one = loaded("qwen2_vl")
    grid, (height, width) = one.grid(None)
    tokens = prompt_tokens(one, default_template(), "paper")
    images = [
        np.asarray(Image.fromarray(crop).resize((width, height))).transpose(2, 0, 1)
        for crop in crops[:3]
    ]
    ids = answer_ids(one.tokenizer)
    found = ask(one, tokens, grid, ids, images[0], images[1:])
    oracle = FullPrompt(
        checkpoint("qwen2_vl"), "qwen2_vl", default_template().to_json(), "paper", one.model
    )
    shares, firsts = [], []
    for candidate in crops[1:3]:
        one.model.model.rope_deltas = None
        with torch.inference_mode():
            logits = one.model(**oracle.inputs([crops[0], candidate]), use_cache=False).logits
        all_of_them = np.exp(logits[0, -1].double().numpy())
        shares.append(all_of_them[list(ids)].sum() / all_of_them.sum())
        firsts.append(int(all_of_them.argmax()))
    assert found.answer_share == pytest.approx(np.mean(shares), rel=1e-4)
    assert found.likeliest in firsts
