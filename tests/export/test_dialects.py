"""A folder is the same model whichever version of transformers wrote it, and whichever reads it."""

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import transformers
from dialects import Dialect, edit, speak, speak_config
from full_prompt import CLIP, HALVES, FullPrompt
from safetensors.torch import load_file, save_file

from murank import InputError
from murank.prompt import default_template
from murank_export.mllm import checkpoint as loading
from murank_export.mllm.checkpoint import Checkpoint, load_checkpoint
from murank_export.mllm.config import read_config
from murank_export.mllm.tokenizer import load_tokenizer
from murank_export.mllm.tokens import answer_ids, prompt_tokens

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
WEIGHTS = "model.safetensors"
Of = Callable[[str], Path]


@pytest.fixture(scope="module")
def loaded(checkpoint: Of) -> Callable[[str], Checkpoint]:
    """A checkpoint as the installed version saved it (shared: never change one)."""
    return functools.cache(lambda family: load_checkpoint(checkpoint(family)))


@pytest.fixture
def copied(checkpoint: Of, tmp_path: Path) -> Of:
    """A checkpoint to change."""
    return lambda family: Path(shutil.copytree(checkpoint(family), tmp_path / family))


def ids(checkpoint: Checkpoint) -> Any:
    template = default_template()
    return prompt_tokens(checkpoint, template, "paper"), answer_ids(checkpoint.tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_the_same_model(
    loaded: Callable[[str], Checkpoint], copied: Of, family: str, dialect: Dialect
) -> None:
    folder, wanted = copied(family), loaded(family)
    speak(folder, dialect)
    found = load_checkpoint(folder)
    assert found.model.state_dict().keys() == wanted.model.state_dict().keys()
    for name, value in wanted.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    assert read_config(folder).rope == read_config(wanted.folder).rope
    assert ids(found) == ids(wanted)
    assert (found.chat_template, found.mean, found.std) == (
        wanted.chat_template, wanted.mean, wanted.std,
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_answers(checkpoint: Of, copied: Of, crops: Any, family: str) -> None:
    """As the installed version gives them to its own folder, all of it read by transformers."""
    template = default_template().to_json()
    wanted = FullPrompt(checkpoint(family), family, template, "paper")
    folder = copied(family)
    speak(folder, "4" if transformers.__version__.startswith("5") else "5")
    found = FullPrompt(checkpoint(family), family, template, "paper", load_checkpoint(folder).model)
    pair = crops[0], crops[1:2]
    np.testing.assert_array_equal(found.logits(*pair), wanted.logits(*pair))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_dialects_are_what_transformers_writes(
    checkpoint: Of, tmp_path: Path, family: str
) -> None:
    """Of the version that is installed; make test-transformers5 has the other."""
    made: Any = transformers.AutoConfig.from_pretrained(checkpoint(family))
    made.save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    speak_config(tmp_path / "config.json", transformers.__version__[0])
    after = json.loads((tmp_path / "config.json").read_text())
    for said in (before, after):
        for place in (said, said["text_config"]):
            place.pop("tie_word_embeddings", None)  # not written where it is not true
            place.pop("model_type", None)
    assert after == before


@pytest.mark.parametrize("dialect", get_args(Dialect))
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_another_theta_is_not_the_same(
    loaded: Callable[[str], Checkpoint], copied: Of, family: str, dialect: Dialect
) -> None:
    folder = copied(family)
    file = folder / "config.json"
    flat = dialect == "published" and family == "qwen2_vl"
    speak_config(file, dialect)
    place = () if flat else ("text_config",)
    if dialect == "5":
        place = (*place, "rope_parameters")
    edit(file, *place, rope_theta=10000)
    assert read_config(folder).rope == replace(read_config(loaded(family).folder).rope, theta=1e4)
    rotary = load_checkpoint(folder).model.model.language_model.rotary_emb
    half = len(rotary.inv_freq)
    wanted = [10000 ** (-step / half) for step in range(half)]
    np.testing.assert_allclose(rotary.inv_freq, wanted, rtol=1e-5)


LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


@pytest.mark.parametrize("dialect", ["4", "5"])
@pytest.mark.parametrize(
    "said",
    [LINEAR, YARN, {**YARN, "beta_fast": 48.0, "beta_slow": 2.0, "attention_factor": 1.5}],
    ids=["linear", "yarn", "yarn-all"],
)
def test_stretched_ropes_are_those_of_transformers(
    copied: Of, said: dict[str, Any], dialect: Dialect
) -> None:
    """Each version computes them; what it computes is compared with `Rope` when it is loaded."""
    folder = copied("qwen2_vl")
    speak_config(folder / "config.json", dialect)
    dict_of = "rope_parameters" if dialect == "5" else "rope_scaling"
    edit(folder / "config.json", "text_config", dict_of, type=None, **said)
    rotary = load_checkpoint(folder).model.model.language_model.rotary_emb
    assert rotary.inv_freq[-1] < 1e6 ** (-7 / 8) / 3.9  # the slowest turns four times slower
    assert rotary.attention_scaling == said.get(
        "attention_factor", 1.0 if said == LINEAR else pytest.approx(0.1 * np.log(4) + 1)
    )


def test_a_version_that_reads_another_rope(
    loaded: Callable[[str], Checkpoint],
) -> None:
    whole = loaded("qwen3_vl")
    for changed in ({"theta": 5e5}, {"interleaved": False}, {"kind": "linear"}):
        said = read_config(whole.folder)
        other = replace(said.rope, numbers={"factor": 2.0}, **changed)
        with pytest.raises(InputError, match=r"config\.json"):
            loading._check_rope(whole.model, replace(said, rope=other))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_theta": None}, "rope_theta"),
        ({"rope_theta": 1}, "rope_theta"),
        ({"rope_theta": "1e6"}, "rope_theta"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"mrope_section": None}, "mrope_section"),
        ({"mrope_section": [2, 3, 4]}, "mrope_section"),
        ({"mrope_section": [4, 4]}, "mrope_section"),
        ({"mrope_section": "2,3,3"}, "mrope_section"),
        ({"mrope_interleaved": True}, "mrope_interleaved"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"type": "yarn"}, "rope_type"),  # beside another rope_type
        ({"type": None, "rope_type": "dynamic", "factor": 2.0}, "dynamic"),
        ({"type": None, "rope_type": "longrope"}, "longrope"),
        ({"type": None, "rope_type": "llama3", "factor": 8.0}, "llama3"),
        ({"type": None, "rope_type": "proportional"}, "proportional"),
        ({"type": None, "rope_type": ["default"]}, "default"),
        ({"factor": 2.0}, "factor"),
        ({"something_new": 1}, "something_new"),
        ({"type": None, "rope_type": "linear"}, "factor"),
        ({"type": None, **LINEAR, "factor": 0.5}, "factor"),
        ({"type": None, **YARN, "original_max_position_embeddings": None}, "original_max"),
        ({"type": None, **YARN, "truncate": False}, "truncate"),
        ({"type": None, **YARN, "mscale": 0.7}, "mscale"),
        ({"full_attention": {"rope_type": "default", "rope_theta": 1e6}}, "full_attention"),
    ],
)
def test_ropes_that_are_refused(copied: Of, changes: dict[str, Any], named: str) -> None:
    folder = copied("qwen2_vl")
    speak_config(folder / "config.json", "5")
    edit(folder / "config.json", "text_config", "rope_parameters", **changes)
    with pytest.raises(InputError, match=named) as error:
        read_config(folder)
    assert str(folder / "config.json") in str(error.value)


@pytest.mark.parametrize(
    ("place", "changes", "named"),
    [
        (("text_config",), {"rope_theta": 1e4}, "rope_theta"),  # beside rope_parameters
        ((), {"rope_theta": 1e4}, "rope_theta"),
        ((), {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type"),
        (("text_config",), {"rope_parameters": None}, "rope_theta"),
        (("text_config",), {"rope_parameters": []}, "rope_parameters"),
        (("text_config",), {"rope_parameters": "default"}, "rope_parameters"),
        (("text_config",), {"partial_rotary_factor": 0.25}, "partial_rotary_factor"),
        (("text_config",), {"rms_norm_eps": None}, "rms_norm_eps"),
        (("text_config",), {"num_attention_heads": None}, "num_attention_heads"),
        (("text_config",), {"num_attention_heads": "4"}, "num_attention_heads"),
        (("vision_config", "rope_parameters"), {"rope_theta": 2e4}, "vision_config"),
        (("vision_config", "rope_parameters"), {"rope_type": "yarn"}, "vision_config"),
        (("vision_config",), {"patch_size": [14, 14]}, "patch_size"),
        (("vision_config",), {"num_heads": None}, "num_heads"),
        ((), {"vision_config": None}, "vision_config"),
        ((), {"text_config": []}, "text_config"),
        ((), {"image_token_id": None}, "image_token_id"),
        ((), {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ],
)
def test_what_else_is_refused(
    copied: Of, place: tuple[str, ...], changes: dict[str, Any], named: str
) -> None:
    folder = copied("qwen2_vl")
    speak_config(folder / "config.json", "5")
    edit(folder / "config.json", *place, **changes)
    with pytest.raises(InputError, match=named) as error:
        read_config(folder)
    assert str(folder / "config.json") in str(error.value)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [None, False, True])
@pytest.mark.parametrize("head", ["none", "own", "table's"])
def test_an_answer_head_and_its_flags(
    copied: Of, family: str, outer: bool, inner: bool | None, head: str
) -> None:
    """The weights decide; a flag, where the version that wrote it looks."""
    folder = copied(family)
    edit(folder / "config.json", tie_word_embeddings=outer)
    edit(folder / "config.json", "text_config", tie_word_embeddings=inner)
    tensors = load_file(folder / WEIGHTS)
    (table,) = (value for name, value in tensors.items() if "embed_tokens" in name)
    tensors.pop("lm_head.weight", None)
    own = 2 * table
    if head != "none":
        tensors["lm_head.weight"] = own if head == "own" else table.clone()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    if (head == "none" and not (outer or inner)) or (head == "own" and inner):
        with pytest.raises(InputError, match="lm_head") as error:
            load_checkpoint(folder)
        assert "tie_word_embeddings" in str(error.value)
        return
    found = load_checkpoint(folder).model.lm_head.weight
    assert torch.equal(found, own if head == "own" else table)


@pytest.mark.parametrize(
    "prefixes", [("model.", "visual."), ("model.language_model.", "model.visual.")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_by_either_name(
    loaded: Callable[[str], Checkpoint], copied: Of, family: str, prefixes: tuple[str, str]
) -> None:
    """The published ones, and those of a state_dict."""
    if family == "qwen3_vl" and prefixes[1] == "visual.":
        pytest.skip("nobody wrote Qwen3-VL so")
    folder = copied(family)
    tensors = {}
    for name, value in load_file(folder / WEIGHTS).items():
        _, is_vision, rest = name.partition("visual.")
        plain = name.removeprefix("model.").removeprefix("language_model.")
        plain = prefixes[1] + rest if is_vision else prefixes[0] + plain
        tensors[name if name == "lm_head.weight" else plain] = value
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    found, wanted = load_checkpoint(folder), loaded(family)
    for name, value in wanted.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)


@pytest.mark.parametrize(
    "templates",
    [
        {"default": "T", "tool_use": "U"},
        [{"name": "tool_use", "template": "U"}, {"name": "default", "template": "T"}],
    ],
)
def test_a_template_among_several(copied: Of, templates: Any) -> None:
    folder = copied("qwen2_vl")
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=templates)
    assert load_tokenizer(folder)[1] == "T"


def test_tokens_that_two_files_number_apart(copied: Of) -> None:
    folder = copied("qwen2_vl")
    speak(folder, "4")
    edit(folder / "tokenizer_config.json", "added_tokens_decoder", **{"99999": {"content": "<x>"}})
    with pytest.raises(InputError, match=r"tokenizer\.json and .*<x>"):
        load_tokenizer(folder)


def write(folder: Path, name: str, **said: Any) -> None:
    (folder / name).write_text(json.dumps(said))


def test_how_images_are_normalised(copied: Of) -> None:
    """In a file of its own, in the processor's (as transformers 5 writes it), or in neither."""
    folder = copied("qwen2_vl")
    own, of_all = "preprocessor_config.json", "processor_config.json"
    write(folder, of_all, processor_class="Qwen2VLProcessor")  # as transformers 4 writes it
    assert loading._normalisation(folder, "qwen2_vl") == tuple(map(tuple, CLIP))
    assert loading._normalisation(folder, "qwen3_vl") == tuple(map(tuple, HALVES))
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 1 / 255}
    wanted = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    write(folder, of_all, image_processor=said)
    assert loading._normalisation(folder, "qwen2_vl") == wanted
    write(folder, own, **said, min_pixels=3136)
    assert loading._normalisation(folder, "qwen2_vl") == wanted
    write(folder, own, **said, do_normalize=False)
    for changed in ({"image_std": [1.0] * 3}, {"do_normalize": False}, {"rescale_factor": 1.0}):
        write(folder, own, **{**said, **changed})
        with pytest.raises(InputError, match=next(iter(changed))):
            loading._normalisation(folder, "qwen2_vl")
    (folder / own).unlink()
    write(folder, of_all, image_processor=[])
    with pytest.raises(InputError, match=of_all):
        loading._normalisation(folder, "qwen2_vl")
