"""Prompt templates: the JSON file that a LoRA was trained with, read as it is."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from murank._exceptions import InputError

_LARGEST_FILE = 1 << 20  # bytes; a prompt is a page of text


@dataclass(frozen=True)
class PromptTemplate:
    """What the MLLM is told about the task (keys of MUSE's template file)."""

    task_description: str
    rules: tuple[str, ...]
    response_format: str  # asks for one word, Yes or No

    @property
    def rules_text(self) -> str:
        """Rules and response format as one text, a line each."""
        return "\n".join([*self.rules, self.response_format])

    @property
    def sha256(self) -> str:
        """Hash of the content: equal for files that differ in white space or key order only."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return what a template file holds."""
        return {
            "task_description": self.task_description,
            "rules": list(self.rules),
            "response_format": self.response_format,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], name: str = "prompt template") -> "PromptTemplate":
        """Read what a template file holds.

        Raises
        ------
        InputError
            A key is missing, unknown, or of another type.
        """
        keys = ("task_description", "rules", "response_format")
        if not isinstance(data, Mapping) or set(data) != set(keys):
            raise InputError(
                f"{name} must be a JSON object with exactly the keys {', '.join(keys)}"
            )
        rules = data["rules"]
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
            raise InputError(f"{name}: rules must be a list of texts")
        for key in ("task_description", "response_format"):
            if not isinstance(data[key], str):
                raise InputError(f"{name}: {key} must be a text")
        template = cls(data["task_description"], tuple(rules), data["response_format"])
        try:
            (template.task_description + template.rules_text).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{name} holds half of a surrogate pair: {error}") from error
        return template


def load_template(path: str | os.PathLike[str]) -> PromptTemplate:
    """Read a template file: JSON with `task_description`, `rules` and `response_format`.

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
        raise InputError(f"{file}: {error.strerror or error}") from error
    if len(raw) > _LARGEST_FILE:
        raise InputError(f"{file} is over 1 MiB: no prompt template")
    try:
        data = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not UTF-8 JSON: {error}") from error
    return PromptTemplate.from_json(data, str(file))


def default_template() -> PromptTemplate:
    """Return the template that murank ships."""
    text = resources.files("murank.prompt").joinpath("default_prompt.json").read_text("utf-8")
    return PromptTemplate.from_json(json.loads(text))
