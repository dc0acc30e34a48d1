"""Prompt templates, read as a LoRA was trained with them, and the order of texts and images."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from murank import InputError
from murank.prompt import (
    LAYOUTS,
    AnswerWords,
    ImageSlot,
    PromptTemplate,
    default_template,
    load_template,
    user_turn,
)

TEMPLATE: dict[str, Any] = {
    "task_description": "One person? ",
    "rules": [" Go by:", "1. clothes é", "2. build"],
    "response_format": "Yes or No.",
}


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(TEMPLATE, indent=4, ensure_ascii=False), "utf-8")
    template = load_template(file)
    assert template.to_json() == TEMPLATE  # white space at the ends of texts too
    assert load_template(str(file)) == template
    assert template.rules_text == " Go by:\n1. clothes é\n2. build\nYes or No."


def test_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(TEMPLATE), "utf-8-sig")
    assert load_template(file).to_json() == TEMPLATE


def test_sha256_is_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "prompt.json"
    hashes = set()
    for keys in (sorted(TEMPLATE), sorted(TEMPLATE, reverse=True)):
        for indent in (None, 2):
            for ascii_only in (True, False):
                data = {key: TEMPLATE[key] for key in keys}
                text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
                file.write_text(text, "utf-8")
                hashes.add(load_template(file).sha256)
    assert len(hashes) == 1
    assert re.fullmatch("[0-9a-f]{64}", hashes.pop())


@pytest.mark.parametrize(
    "change",
    [
        {"task_description": "One person?"},  # a space less
        {"rules": [" Go by:", "1. clothes é"]},
        {"rules": [" Go by:", "2. build", "1. clothes é"]},
        {"response_format": "Yes or no."},
    ],
)
def test_sha256_tells_contents_apart(change: dict[str, Any]) -> None:
    one, other = (PromptTemplate.from_json(data) for data in (TEMPLATE, TEMPLATE | change))
    assert one.sha256 != other.sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"{", "is not UTF-8 JSON"),
        (b"One person? Yes or No.", "is not UTF-8 JSON"),
        (json.dumps(TEMPLATE, ensure_ascii=False).encode("latin-1"), "is not UTF-8 JSON"),
        (json.dumps(TEMPLATE).encode("utf-16"), "is not UTF-8 JSON"),
        (b"[" * 100_000, "is not UTF-8 JSON"),
        (b" " * (1 << 20) + b"{}", "is over 1 MiB"),
    ],
)
def test_files_that_hold_no_json(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "prompt.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"prompt\.json {message}"):
        load_template(file)


KEYS = "exactly the keys task_description, rules, response_format"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], KEYS),
        ("Yes", KEYS),
        (None, KEYS),
        ({}, KEYS),
        ({key: TEMPLATE[key] for key in ("task_description", "rules")}, KEYS),
        ({**TEMPLATE, "rule": []}, KEYS),
        ({**TEMPLATE, "rules": "Go by clothes"}, "rules must be a list of texts"),
        ({**TEMPLATE, "rules": {"1": "clothes"}}, "rules must be a list of texts"),
        ({**TEMPLATE, "rules": ["clothes", 2]}, "rules must be a list of texts"),
        ({**TEMPLATE, "rules": [["clothes"]]}, "rules must be a list of texts"),
        ({**TEMPLATE, "task_description": None}, "task_description"),
        ({**TEMPLATE, "response_format": ["Yes", "No"]}, "response_format"),
        ({**TEMPLATE, "response_format": "\ud800"}, "holds half of a surrogate pair"),
        ({**TEMPLATE, "rules": ["\udfff"]}, "holds half of a surrogate pair"),
        ({**TEMPLATE, "candidate": "\udfff"}, "holds half of a surrogate pair"),
        ({**TEMPLATE, "system": None}, "system must be a text"),
        ({**TEMPLATE, "query": ["Query:"]}, "query must be a text"),
        ({**TEMPLATE, "answers": "yes/no"}, "answers"),
        ({**TEMPLATE, "answers": ["yes", "no"]}, "answers"),
        ({**TEMPLATE, "answers": {"same": "yes"}}, "answers"),
        ({**TEMPLATE, "answers": {"yes": "yes", "no": "no"}}, "answers"),
        ({**TEMPLATE, "answers": {"same": "yes", "different": 0}}, "answers"),
        ({**TEMPLATE, "answers": {"same": "yes", "different": " "}}, "answers"),
        ({**TEMPLATE, "answers": {"same": "no", "different": "no"}}, "answers"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, data: Any, message: str) -> None:
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"prompt\.json.* {message}"):
        load_template(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        load_template(tmp_path / "none.json")
    with pytest.raises(InputError, match="Is a directory"):
        load_template(tmp_path)


def test_a_template_without_rules_is_one() -> None:
    template = PromptTemplate.from_json({**TEMPLATE, "rules": []})
    assert template.rules_text == "Yes or No."


def test_the_paper_layout() -> None:
    assert list(user_turn(PromptTemplate.from_json(TEMPLATE), "paper")) == [
        "One person? ",
        "Query:",
        ImageSlot.QUERY,
        " Candidate:",
        ImageSlot.CANDIDATE,
        " Go by:\n1. clothes é\n2. build\nYes or No.",
    ]


def test_the_prefix_first_layout() -> None:
    assert list(user_turn(PromptTemplate.from_json(TEMPLATE), "prefix_first")) == [
        "One person? ",
        " Go by:\n1. clothes é\n2. build\nYes or No.\n",
        "Query:",
        ImageSlot.QUERY,
        " Candidate:",
        ImageSlot.CANDIDATE,
    ]


OWN = {
    "system": "Judge.",
    "query": "A:",
    "candidate": "\nB:",
    "answers": {"same": "yes", "different": "no"},
}


def test_keys_of_its_own() -> None:
    template = PromptTemplate.from_json({**TEMPLATE, **OWN, "rules": [], "response_format": ""})
    assert (template.system, template.answers) == ("Judge.", AnswerWords("yes", "no"))
    assert PromptTemplate.from_json(template.to_json()) == template
    for layout in LAYOUTS:  # without rules there is nothing to move
        turn = [part for part in user_turn(template, layout) if part]
        assert turn == ["One person? ", "A:", ImageSlot.QUERY, "\nB:", ImageSlot.CANDIDATE]


@pytest.mark.parametrize("key", OWN)
def test_each_tells_prompts_apart(key: str) -> None:
    plain = PromptTemplate.from_json(TEMPLATE)
    other = PromptTemplate.from_json({**TEMPLATE, key: OWN[key]})
    assert other.sha256 != plain.sha256
    assert set(other.to_json()) == {*TEMPLATE, key}


def test_what_is_usual_needs_no_key() -> None:
    """Engines and adapters made before there were more keys have the hash without them."""
    usual = {
        "query": "Query:", "candidate": " Candidate:",
        "answers": {"same": "Yes", "different": "No"},
    }  # fmt: skip
    template = PromptTemplate.from_json({**TEMPLATE, **usual})
    assert template == PromptTemplate.from_json(TEMPLATE)
    assert template.to_json() == TEMPLATE
    text = json.dumps(TEMPLATE, sort_keys=True, separators=(",", ":"))
    assert template.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_layouts_are_those_two() -> None:
    assert LAYOUTS == ("paper", "prefix_first")


def test_the_shipped_template() -> None:
    template = default_template()
    assert default_template() == template
    assert PromptTemplate.from_json(template.to_json()) == template
    assert '"Query:"' in template.task_description
    assert '"Candidate:"' in template.task_description
    assert '"Yes"' in template.response_format
    assert '"No"' in template.response_format
    assert len(template.rules) > 1
    assert template.task_description.endswith(" ")  # what follows is joined without a space
