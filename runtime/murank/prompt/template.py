"""Prompt templates: the JSON file that a LoRA was trained with, read as it is."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from murank._exceptions import InputError
from murank.files.stand_in import misread

_LARGEST_FILE = 1 << 20  # bytes; a prompt is a page of text
_NEEDED = ("task_description", "rules", "response_format")
_MAY_HAVE = ("system", "query", "candidate", "answers")


@dataclass(frozen=True)
class AnswerWords:
    """What the MLLM says of a pair."""

    same: str = "Yes"  # the same person
    different: str = "No"  # two people

    @classmethod
    def from_json(cls, data: object, name: str) -> "AnswerWords":
        """Read them; InputError unless they are two words that differ."""
        keys = [one.name for one in fields(cls)]
        if not isinstance(data, Mapping) or set(data) != set(keys):
            raise InputError(f"{name} must be an object with exactly the keys {', '.join(keys)}")
        words = cls(**data)
        if not all(isinstance(word, str) and word.strip() for word in data.values()):
            raise InputError(f"{name}: same and different must be a word each")
        if words.same == words.different:
            raise InputError(f"{name}: same and different must differ, both are {words.same!r}")
        return words


@dataclass(frozen=True)
class PromptTemplate:
    """What the MLLM is told about the task: the keys of MUSE's template file, and four more."""

    task_description: str
    rules: tuple[str, ...]
    response_format: str  # asks for one word, see `answers`
    system: str | None = None  # the system turn; None: what the chat template has, if it has one
    query: str = "Query:"  # in front of the query's image
    candidate: str = " Candidate:"  # in front of the candidate's image
    answers: AnswerWords = AnswerWords()

    @property
    def rules_text(self) -> str:
        """Rules and response format as one text, a line each."""
        return "\n".join([*self.rules, self.response_format])

    @property
    def whole_text(self) -> str:
        """Every text of it, to look for a word in."""
        texts = (self.system or "", self.task_description, self.query, self.candidate)
        return "\n".join([*texts, self.rules_text])

    @property
    def sha256(self) -> str:
        """Hash of the content: equal for files that differ in white space or key order only."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return what a template file holds; what is as it is without the key has none."""
        data = asdict(self) | {"rules": list(self.rules)}
        usual = PromptTemplate("", (), "")
        left_out = {key for key in _MAY_HAVE if getattr(self, key) == getattr(usual, key)}
        return {key: value for key, value in data.items() if key not in left_out}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], name: str = "prompt template") -> "PromptTemplate":
        """Read what a template file holds.

        Raises
        ------
        InputError
            A key is missing, unknown, or of another type.
        """
        if not isinstance(data, Mapping) or not set(_NEEDED) <= set(data) <= {*_NEEDED, *_MAY_HAVE}:
            raise InputError(
                f"{name} must be a JSON object with exactly the keys {', '.join(_NEEDED)}, and "
                f"perhaps {', '.join(_MAY_HAVE)}"
            )
        values = dict(data)
        rules = values["rules"]
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
            raise InputError(f"{name}: rules must be a list of texts")
        values["rules"] = tuple(rules)
        for key in values.keys() - {"rules", "answers"}:
            if not isinstance(values[key], str):
                raise InputError(f"{name}: {key} must be a text")
        if "answers" in values:
            values["answers"] = AnswerWords.from_json(values["answers"], f"{name}: answers")
        template = cls(**values)
        try:
            json.dumps(template.to_json(), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{name} holds half of a surrogate pair: {error}") from error
        return template


def load_template(path: str | os.PathLike[str]) -> PromptTemplate:
    """Read a template file: JSON with the keys that docs/formats.md names.

    Raises
    ------
    InputError
        The file cannot be read, or is no such JSON.
    """
    file = Path(path)
    try:
        with file.open("rb") as handle:
            raw = handle.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise misread(file, f": {error.strerror or error}") from error
    if len(raw) > _LARGEST_FILE:
        raise InputError(f"{file} is over 1 MiB: no prompt template")
    try:
        data = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise misread(file, f" is not UTF-8 JSON: {error}") from error
    return PromptTemplate.from_json(data, str(file))


def default_template() -> PromptTemplate:
    """Return the template that murank ships."""
    text = resources.files("murank.prompt").joinpath("default_prompt.json").read_text("utf-8")
    return PromptTemplate.from_json(json.loads(text))
