"""Tokenizer and chat template of a checkpoint, whichever version of transformers wrote them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from murank import InputError
from murank_export.sources.loading import one_line, read_json
from murank_export.sources.quiet import quiet

_FILE, _VOCABULARY, _CONFIG = "tokenizer.json", "vocab.json", "tokenizer_config.json"
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")  # as chat templates may name them


def load_tokenizer(folder: Path) -> tuple[Any, str]:
    """Return a tokenizer, and the chat template of a whole turn.

    Raises
    ------
    InputError
        One of them is missing, damaged, or of another form.
    """
    said = read_json(folder / _CONFIG) if (folder / _CONFIG).exists() else {}
    try:
        with quiet():
            tokenizer = _from_json(folder / _FILE, said) or _from_parts(folder)
    except Exception as error:
        # transformers raises TypeError where a file is missing, tokenizers plain exceptions.
        raise InputError(f"{folder}: no tokenizer could be loaded: {one_line(error)}") from error
    _check_added(folder, tokenizer, said)
    return tokenizer, _chat_template(folder, tokenizer)


def _from_json(file: Path, said: Mapping[str, Any]) -> Any:
    """Make it from the file alone: the classes that configs name differ between versions."""
    if not file.exists():
        return None
    import transformers

    kind: Any = transformers.PreTrainedTokenizerFast
    named = {name: _content(said[name]) for name in _NAMED if said.get(name) is not None}
    if isinstance(said.get("add_prefix_space"), bool):
        named["add_prefix_space"] = said["add_prefix_space"]
    made = kind(tokenizer_file=str(file), **named)
    made.chat_template = said.get("chat_template")
    return made


def _from_parts(folder: Path) -> Any:
    """Leave it to transformers where there is only a vocabulary, with its merges."""
    if not (folder / _VOCABULARY).exists():  # transformers 5 would make one up
        raise ValueError(f"there is no {_FILE}, nor a {_VOCABULARY}")
    import transformers

    loader: Any = transformers.AutoTokenizer
    return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _check_added(folder: Path, tokenizer: Any, said: Mapping[str, Any]) -> None:
    """Raise InputError where the two files give a token different ids, or one lacks it."""
    added = said.get("added_tokens_decoder")
    for number, token in added.items() if isinstance(added, dict) else ():
        text = _content(token)
        if str(tokenizer.get_vocab().get(text)) != number:
            raise InputError(f"{folder}: {_FILE} and {_CONFIG} differ in the token {text!r}")


def _content(token: object) -> object:
    return token.get("content") if isinstance(token, dict) else token


def _chat_template(folder: Path, tokenizer: Any) -> str:
    """Return the template of a whole turn.

    A processor's comes first: the tokenizer beside it may have one without the turn markers.
    """
    jinja, wrapped = folder / "chat_template.jinja", folder / "chat_template.json"
    if jinja.exists():
        try:
            return jinja.read_text("utf-8")
        except ValueError as error:
            raise InputError(f"{jinja} is not UTF-8") from error
    if wrapped.exists():
        template = read_json(wrapped).get("chat_template")
        if not isinstance(template, str):
            raise InputError(f"{wrapped} must hold a text under chat_template")
        return template
    template = _usual(tokenizer.chat_template)
    if not isinstance(template, str):
        raise InputError(f"{folder} has no chat template (chat_template.json or .jinja)")
    return template


def _usual(templates: object) -> object:
    """Of several templates by name, which are a list in the file: the one named default."""
    if isinstance(templates, list):
        templates = {
            one.get("name"): one.get("template") for one in templates if isinstance(one, dict)
        }
    return templates.get("default") if isinstance(templates, dict) else templates
