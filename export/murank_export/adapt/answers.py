"""What the model is to say: one of two words, and that it has said it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from murank import InputError
from murank.prompt import AnswerWords
from murank_export.mllm.checkpoint import Checkpoint
from murank_export.mllm.tokens import answer_ids, token_ids

IGNORED = -100  # PyTorch's mark of a target that does not count
_USUAL = AnswerWords()
_THOUGHT = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class Answers:
    """Token ids of the assistant's turn."""

    no: tuple[int, ...]
    yes: tuple[int, ...]
    end: int  # of the turn

    @property
    def length(self) -> int:
        """Tokens of the longer answer, without the end."""
        return max(len(self.no), len(self.yes))

    @property
    def first(self) -> tuple[int, int]:
        """First tokens of No and Yes: what a served model is asked for."""
        return self.no[0], self.yes[0]

    def tokens(self, match: bool) -> tuple[int, ...]:
        """Return what is right to say, with the end of the turn."""
        return (*(self.yes if match else self.no), self.end)

    def inputs(self, matches: Sequence[bool]) -> Tensor:
        """Token ids that follow the prompts, [pairs,length]; the shorter answer is filled up."""
        return self._filled(matches, self.end)[:, :-1]

    def targets(self, matches: Sequence[bool]) -> Tensor:
        """Token ids that are right, [pairs,length+1]; IGNORED behind the end."""
        return self._filled(matches, IGNORED)

    def _filled(self, matches: Sequence[bool], filler: int) -> Tensor:
        rows = torch.full((len(matches), self.length + 1), filler)
        for row, match in zip(rows, matches, strict=True):
            tokens = self.tokens(match)
            row[: len(tokens)] = torch.tensor(tokens)
        return rows


def find_answers(checkpoint: Checkpoint, words: AnswerWords = _USUAL) -> Answers:
    """Ask the chat template how the assistant's turn ends.

    Raises
    ------
    InputError
        The template does not go on where its generation prompt ends, or ends a turn with nothing;
        or a word cannot be an answer.
    """
    asked = _render(checkpoint, None)
    first = answer_ids(checkpoint.tokenizer, words, asked)  # refuses what cannot be an answer
    if words == _USUAL:
        no, yes = (tuple(token_ids(checkpoint.tokenizer, word)) for word in ("No", "Yes"))
    else:
        no, yes = ((token,) for token in first)
    # A template may put an empty thought into one of the two only.
    answered = _THOUGHT.sub("", _render(checkpoint, words.same))
    rest = answered.removeprefix(_THOUGHT.sub("", asked) + words.same)
    end = token_ids(checkpoint.tokenizer, rest) if rest != answered else ()
    if not end:
        raise InputError(
            f"{checkpoint.folder}: the chat template must put an answer and an end of turn behind "
            f"its generation prompt; it gave {answered[-80:]!r}"
        )
    return Answers(no, yes, end[0])


def _render(checkpoint: Checkpoint, answer: str | None) -> str:
    turns = [("user", "Same?")] + ([] if answer is None else [("assistant", answer)])
    text: str = checkpoint.tokenizer.apply_chat_template(
        [{"role": role, "content": [{"type": "text", "text": said}]} for role, said in turns],
        chat_template=checkpoint.chat_template,
        tokenize=False,
        add_generation_prompt=answer is None,
    )
    return text
