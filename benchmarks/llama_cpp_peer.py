"""llama.cpp as a contender of scoring.py: the checkpoint's decoder as GGUF, asked as an engine is.

Only the decoder is llama.cpp's: vision tokens come from the engine's own graph of the tower. What
helps it is granted: the static prompt stays in its cache, candidates share the query's prefix, and
the vocabulary has two words, No and Yes, so that nothing else of the answer head is computed.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file

from murank import MachineError
from murank.backends.load import load_session
from murank.backends.protocol import SessionSettings
from murank.folder.contents import EngineFiles
from murank.folder.manifest import ScorerPart, read_manifest
from murank.machine.library import LibraryError, library

INSTALL = "pip install llama-cpp-python gguf (the first is compiled: cmake and a C++ compiler)"
# llama.cpp's graph of "paddleocr" is that of "qwen2vl", whose epsilon of RMSNorm the llama.cpp of
# llama-cpp-python 0.3.36 leaves unread: it computes with 0, and logits here moved by 0.03.
_ARCHITECTURE = "paddleocr"
_NO_FLASH, _F32 = 0, 0  # of llama.cpp's enumerations


def packages() -> tuple[ModuleType, ModuleType]:
    """Return llama_cpp and gguf.

    Raises
    ------
    LibraryError
        One is missing.
    """
    return library("llama_cpp", install=INSTALL), library("gguf", install=INSTALL)


def folder_of(work: Path) -> Path:
    """Where the files are that llama.cpp reads."""
    return work / "llama.cpp"


def write_files(work: Path, layouts: Sequence[str]) -> None:
    """Write what LlamaCpp reads, where that was not done before and the packages are here."""
    try:
        _, gguf = packages()
    except LibraryError:  # its rows will say so
        return
    made = folder_of(work)
    made.mkdir(exist_ok=True)
    for layout in layouts:
        if not static_file(work, layout).exists():
            np.save(static_file(work, layout), static_text(work / "checkpoint", layout))
    part = read_manifest(work / f"{layouts[0]}-fp32").scorer
    assert part is not None
    if not decoder_file(work).exists():
        write_decoder(gguf, work / "checkpoint", decoder_file(work), part)


def decoder_file(work: Path) -> Path:
    """The decoder's weights."""
    return folder_of(work) / "decoder-f32.gguf"


def static_file(work: Path, layout: str) -> Path:
    """The static prompt's embeddings."""
    return folder_of(work) / f"{layout}-static.npy"


def static_text(checkpoint: Path, layout: str) -> NDArray[np.float32]:
    """Embeddings [n,H] of the prompt up to the query image."""
    from murank.prompt import default_template
    from murank_export.mllm.checkpoint import load_checkpoint
    from murank_export.mllm.tokens import prompt_tokens

    loaded = load_checkpoint(checkpoint)
    ids = prompt_tokens(loaded, default_template(), layout).static  # type: ignore[arg-type]
    table = loaded.model.get_input_embeddings().weight.detach()
    rows: NDArray[np.float32] = table[list(ids)].numpy()
    return rows


def write_decoder(gguf: Any, checkpoint: Path, file: Path, part: ScorerPart) -> None:
    """Write the language model, float32."""
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    layers = config["num_hidden_layers"]
    aside = file.with_suffix(".part")
    writer = gguf.GGUFWriter(aside, _ARCHITECTURE)
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_sections([*config["rope_scaling"]["mrope_section"], 0])
    writer.add_tokenizer_model("none")  # all that is asked comes as embeddings
    writer.add_vocab_size(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2VL, layers)
    for name, values in decoder_tensors(checkpoint, [part.answer_ids.no, part.answer_ids.yes]):
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    aside.rename(file)


def decoder_tensors(
    checkpoint: Path, answers: Sequence[int]
) -> list[tuple[str, NDArray[np.float32]]]:
    """Names and values of the language model; of its vocabulary, the rows of the answers alone."""
    found = []
    with safe_open(checkpoint / "model.safetensors", "np") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping
            if name.startswith(("visual.", "model.visual.")):
                continue
            values = tensors.get_tensor(name)
            if "embed_tokens" in name or "lm_head" in name:
                values = values[list(answers)]
            found.append((name.replace("language_model.", ""), values))
    return found


class LlamaCpp:
    """The decoder in llama.cpp, the vision tower in onnxruntime."""

    def __init__(self, work: Path, layout: str, *, threads: int, count: int) -> None:
        """Load it for `count` candidates of a query; the static prompt is computed here.

        Raises
        ------
        LibraryError
            llama.cpp's Python package is not here.
        MachineError
            llama.cpp cannot load the decoder, or has no room for so many candidates.
        """
        self._lib, _ = packages()
        engine = work / f"{layout}-fp32"
        files = EngineFiles(engine, read_manifest(engine))
        part = files.manifest.scorer
        assert part is not None
        shapes = part.shapes
        self._tower = load_session(files, part.vision, SessionSettings("cpu", threads))
        self._prompt = load_file(engine / part.prompt)
        self._static, self._width = shapes.static_tokens, shapes.hidden
        at_once = count * shapes.suffix_tokens
        self._context = self._load(
            decoder_file(work), threads, count + 1,
            length=shapes.static_tokens + shapes.prefill_tokens + shapes.suffix_tokens,
            at_once=max(at_once, shapes.static_tokens),
        )  # fmt: skip
        self._memory = self._lib.llama_get_memory(self._context)
        places = np.tile(np.arange(self._static), (3, 1))
        self._decode(np.load(static_file(work, layout)), places, np.zeros(self._static, int))

    def _load(self, file: Path, threads: int, sequences: int, *, length: int, at_once: int) -> Any:
        """Return a context of so many sequences, each of at most `length` tokens.

        Its K/V are float32, as the others' are. Of its ways to attend the fastest here: a part of
        the cache for each sequence, the prefix copied into it, and no flash attention (which takes
        half as much again, and rounds: 5e-4 of a logit against 4e-6).
        """
        lib = self._lib
        self._silent = lib.llama_log_callback(lambda *_: None)  # it must outlive the context
        lib.llama_log_set(self._silent, None)
        lib.llama_backend_init()
        how = lib.llama_model_default_params()
        self._model = lib.llama_model_load_from_file(str(file).encode(), how)
        if not self._model:  # a null pointer
            raise MachineError(f"llama.cpp cannot load {file}")
        settings = lib.llama_context_default_params()
        settings.n_ctx = sequences * length
        settings.n_batch = settings.n_ubatch = at_once
        settings.n_seq_max, settings.kv_unified = sequences, False
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k = settings.type_v = _F32
        settings.flash_attn_type = _NO_FLASH
        context = lib.llama_init_from_model(self._model, settings)
        if not context:
            raise MachineError(
                f"llama.cpp cannot make a context of {sequences} sequences of {length} tokens"
            )
        return context

    def vision(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images [n,3,H,W] -> vision tokens [n,T,H]."""
        (tokens,) = self._tower.run({"images": images}, ["tokens"])
        values: NDArray[np.float32] = tokens.numpy()[:, 0]
        return values

    def score(self, query: NDArray[np.uint8], known: NDArray[np.float32]) -> NDArray[np.float32]:
        """Query image [3,H,W] and vision tokens [K,T,H] -> logits [K,2] of No and Yes."""
        lib, count = self._lib, len(known)
        lib.llama_memory_seq_rm(self._memory, 0, self._static, -1)
        for one in range(1, count + 1):
            lib.llama_memory_seq_rm(self._memory, one, -1, -1)
        prefix = np.concatenate([self.vision(query[None])[0], self._prompt["prefill_text"]])
        places = self._prompt["prefill_positions"]
        self._decode(prefix, places, np.zeros(len(prefix), int))
        for one in range(1, count + 1):
            lib.llama_memory_seq_cp(self._memory, 0, one, -1, -1)
        text, places = self._prompt["suffix_text"], self._prompt["suffix_positions"]
        behind = np.broadcast_to(text, (count, *text.shape))
        tokens = np.concatenate([known, behind], 1)
        each = tokens.shape[1]
        last = np.arange(count) * each + each - 1
        rows = tokens.reshape(-1, self._width), np.tile(places, (1, count))
        self._decode(*rows, np.repeat(np.arange(1, count + 1), each), last)
        found = [lib.llama_get_logits_ith(self._context, int(one))[:2] for one in last]
        return np.array(found, np.float32)

    def _decode(
        self, values: Any, places: Any, sequences: Any, wanted: Sequence[int] | Any = ()
    ) -> None:
        """Run embeddings [n,H] at M-RoPE positions [3,n] of sequences [n]; logits of `wanted`."""
        count = len(values)
        values = np.ascontiguousarray(values, np.float32)
        four = np.zeros((4, count), np.int32)  # the fourth has no part in Qwen2-VL
        four[:3] = places
        ones, numbers = np.ones(count, np.int32), np.ascontiguousarray(sequences, np.int32)
        pointers = (numbers.ctypes.data + 4 * np.arange(count)).astype(np.uintp)
        outputs = np.zeros(count, np.int8)
        outputs[list(wanted)] = 1
        integer = ctypes.POINTER(ctypes.c_int32)
        batch = self._lib.llama_batch(
            n_tokens=count,
            embd=values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            pos=four.ctypes.data_as(integer),
            n_seq_id=ones.ctypes.data_as(integer),
            seq_id=pointers.ctypes.data_as(ctypes.POINTER(integer)),
            logits=outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        if self._lib.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama.cpp could not run the batch")
