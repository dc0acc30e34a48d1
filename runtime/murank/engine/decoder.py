"""Answer logits of candidates behind a shared prefix: prefill once, then score in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.backends.device_rows import as_input
from murank.backends.load import load_session
from murank.backends.protocol import SessionSettings, Shape
from murank.folder.contents import EngineFiles
from murank.folder.kv_names import past_names, present_names
from murank.folder.manifest import ScorerPart, Shapes


@dataclass(frozen=True)
class Prefix:
    """K/V of the prompt up to the candidate image, of Q queries; stays on the device."""

    values: tuple[Any, ...]  # 2 x layers of [Q,KVH,P,D], as the decoder takes them


class Decoder:
    """The decoder of an engine folder, with the baked prompt."""

    def __init__(self, files: EngineFiles, part: ScorerPart, settings: SessionSettings) -> None:
        self.file = files.folder / part.decoder
        self.session = load_session(files, part.decoder, settings)
        self._past = past_names(part.shapes.layers)
        self._present = present_names(part.shapes.layers)
        s = part.shapes
        past: Shape = (None, s.kv_heads, None, s.head_dim)
        vision = {"vision": (None, None, s.levels, s.vision_tokens, s.hidden)}
        text = {"text": (None, s.hidden), "position_ids": (3, None)}
        self.session.expect(
            {**vision, **text, **dict.fromkeys(self._past, past)},
            {"logits": (None, None, 2), **dict.fromkeys(self._present, past)},
        )
        prompt = _load_prompt(files, part.prompt, s)
        self.dtype: np.dtype[Any] = prompt["suffix_text"].dtype  # of vision tokens as well
        self._baked = {name: prompt[name] for name in self._past}
        self._prefill = self._text(prompt, "prefill")
        self._suffix = self._text(prompt, "suffix")
        self._static_prefix = self._repeat_static(1)
        self._repeated: dict[int, Prefix] = {}  # for the number of queries asked last

    def prefill(self, tokens: NDArray[Any]) -> Prefix:
        """Vision tokens of query images [Q,levels,T,H], or rows [Q] of them -> their prefix."""
        static = self._static(len(tokens))
        values = self._run(tokens[:, None], self._prefill, static, self._present)
        return Prefix(tuple(values))

    def joined(self, prefixes: Sequence[Prefix]) -> Prefix:
        """Prefixes of Q queries, as one; copied, on a CPU."""
        columns = zip(*(prefix.values for prefix in prefixes), strict=True)
        arrays = (np.concatenate([one.numpy() for one in column]) for column in columns)
        named = zip(self._past, arrays, strict=True)
        return Prefix(tuple(self.session.to_device(array, name) for name, array in named))

    def logits(self, prefix: Prefix, tokens: NDArray[Any]) -> NDArray[np.float32]:
        """Vision tokens of candidates [Q,K,levels,T,H], or rows [Q,K] -> logits [Q,K,2].

        The logits are those of No and Yes.
        """
        (values,) = self._run(tokens, self._suffix, prefix, ["logits"])
        logits: NDArray[np.float32] = values.numpy()
        if logits.shape != (*tokens.shape[:2], 2):
            raise InputError(
                f"{self.file} gives logits {list(logits.shape)} instead of two a candidate; "
                "export the engine again"
            )
        return logits

    def _run(
        self, tokens: NDArray[Any], text: dict[str, Any], past: Prefix, outputs: Sequence[str]
    ) -> list[Any]:
        inputs = {
            "vision": as_input(tokens),
            **text,
            **dict(zip(self._past, past.values, strict=True)),
        }
        return self.session.run(inputs, outputs)

    def _text(self, prompt: dict[str, NDArray[Any]], phase: str) -> dict[str, Any]:
        return {
            "text": self.session.to_device(prompt[f"{phase}_text"], "text"),
            "position_ids": self.session.to_device(prompt[f"{phase}_positions"]),
        }

    def _static(self, queries: int) -> Prefix:
        """Return the static prefix, once a query."""
        if queries == 1:
            return self._static_prefix
        static = self._repeated.get(queries)
        if static is None:
            static = self._repeat_static(queries)
            if self.session.device != "cpu":  # the way to a GPU takes longer than the prefill
                self._repeated = {queries: static}
        return static

    def _repeat_static(self, queries: int) -> Prefix:
        return Prefix(
            tuple(
                self.session.to_device(np.repeat(self._baked[name], queries, axis=0), name)
                for name in self._past
            )
        )


def _load_prompt(files: EngineFiles, name: str, shapes: Shapes) -> dict[str, NDArray[Any]]:
    file, prompt = files.folder / name, files.tensors(name)
    past = (1, shapes.kv_heads, shapes.static_tokens, shapes.head_dim)
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(past_names(shapes.layers), past)
    for phase in ("prefill", "suffix"):
        tokens: int = getattr(shapes, f"{phase}_tokens")
        wanted[f"{phase}_text"] = (tokens - shapes.vision_tokens, shapes.hidden)
        wanted[f"{phase}_positions"] = (3, tokens)
    for name, shape in wanted.items():
        if name not in prompt or prompt[name].shape != shape:
            raise InputError(f"{file} has no {name} of shape {shape}; export the engine again")
    return prompt
