"""A checkpoint's folder in the words of the families' authors, of transformers 4, or of 5.

Each was looked up in folders that were published, or saved by 4.57 and 5.24.
"""

import json
from pathlib import Path
from typing import Any, Literal

Dialect = Literal["published", "4", "5"]


def edit(file: Path, *place: str, **changes: Any) -> None:
    """Set keys of a JSON file, or of an object within it; None removes one."""
    said = json.loads(file.read_text())
    one = said
    for name in place:
        one = one[name]
    one.update(changes)
    for name in [name for name, value in one.items() if value is None]:
        del one[name]
    file.write_text(json.dumps(said))


def speak(folder: Path, dialect: Dialect) -> None:
    """Rewrite a folder that transformers saved."""
    speak_config(folder / "config.json", dialect)
    file = folder / "tokenizer_config.json"
    if dialect == "5":
        names = list(json.loads(file.read_text()).get("added_tokens_decoder", {}).values())
        special = {"extra_special_tokens": [one["content"] for one in names]} if names else {}
        edit(file, added_tokens_decoder=None, backend="tokenizers", is_local=True, **special)
        edit(file, tokenizer_class="TokenizersBackend")
        (folder / "special_tokens_map.json").unlink(missing_ok=True)
    else:
        added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        decoder = {str(one.pop("id")): one for one in added}
        edit(file, added_tokens_decoder=decoder, backend=None, extra_special_tokens={})
        edit(file, tokenizer_class="PreTrainedTokenizerFast")


def speak_config(file: Path, dialect: Dialect) -> None:
    """Rewrite a config.json that transformers saved."""
    said = json.loads(file.read_text())
    text, vision, family = said["text_config"], said["vision_config"], said["model_type"]
    flags = [bool(place.pop("tie_word_embeddings", False)) for place in (text, said)]
    tied = any(flags) if "rope_parameters" in text else flags[0]  # where each version looks
    rope = text.pop("rope_parameters", None)
    if rope is None:
        rope = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    vision.pop("rope_parameters", None)
    theta = rope.pop("rope_theta")
    old = {"rope_theta": theta, "rope_scaling": rope, "tie_word_embeddings": tied}
    if dialect == "5":
        text["rope_parameters"] = {"rope_type": "default", **rope, "rope_theta": theta}
        vision["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "axial"}
        said["tie_word_embeddings"] = tied
    else:
        text |= old
    vision["model_type"] = f"{family}_vision" if dialect == "5" else family
    if dialect == "published" and family != "qwen3_vl":
        del said["text_config"], text["model_type"]
        rope.pop("rope_type", None)
        said = {**text, **said, "rope_scaling": {**rope, "type": "mrope"}}
    file.write_text(json.dumps(said))
