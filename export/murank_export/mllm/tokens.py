"""The prompt as tokens: what is static, what a query adds, what a candidate adds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from murank import InputError
from murank.prompt import AnswerWords, ImageSlot, Layout, PromptTemplate, user_turn
from murank_export.graphs.geometry import Grid, token_positions
from murank_export.mllm.checkpoint import Checkpoint

_USUAL = AnswerWords()


@dataclass(frozen=True)
class PromptTokens:
    """Token ids around the two images of a prompt."""

    static: tuple[int, ...]  # before the query image: the same for every query
    between: tuple[int, ...]  # behind the query image
    behind: tuple[int, ...]  # behind the candidate image, to the first answer token
    image: int  # id that stands for one vision token

    def full(self, vision_tokens: int) -> list[int]:
        """Return the ids of a whole two-image prompt."""
        image = [self.image] * vision_tokens
        return [*self.static, *image, *self.between, *image, *self.behind]

    def positions(self, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """M-RoPE positions [3,n] of the static, the prefill and the suffix tokens."""
        ids = self.full(grid.num_tokens)
        positions = token_positions([token == self.image for token in ids], grid)
        first = len(self.static)
        second = first + grid.num_tokens + len(self.between)
        return positions[:, :first], positions[:, first:second], positions[:, second:]


def prompt_text(checkpoint: Checkpoint, template: PromptTemplate, layout: Layout) -> str:
    """Return the prompt in the checkpoint's own chat template, to where the answer begins.

    Raises
    ------
    InputError
        The chat template leaves the system turn out, or has the model think first.
    """
    turns = [] if template.system is None else [_turn("system", template.system)]
    turns.append(_turn("user", *user_turn(template, layout)))
    text: str = checkpoint.tokenizer.apply_chat_template(
        turns,
        chat_template=checkpoint.chat_template,
        tokenize=False,
        add_generation_prompt=True,
    )
    # One that is closed is thought already, as the empty one of models that were told not to think.
    if text.rfind("<think>") > text.rfind("</think>"):
        raise InputError(
            f"{checkpoint.folder} thinks before it answers, so its first token is no answer; take "
            "the Instruct checkpoint of the family"
        )
    if template.system is not None and template.system not in text:
        raise InputError(f"{checkpoint.folder}: its chat template leaves out the prompt's system")
    return text


def prompt_tokens(checkpoint: Checkpoint, template: PromptTemplate, layout: Layout) -> PromptTokens:
    """Tokenise the prompt in the checkpoint's own chat template.

    Raises
    ------
    InputError
        The chat template does not place two images with text around them.
    """
    ids = token_ids(checkpoint.tokenizer, prompt_text(checkpoint, template, layout))
    image = int(checkpoint.model.config.image_token_id)
    places = [place for place, token in enumerate(ids) if token == image]
    if len(places) != 2 or not 0 < places[0] < places[1] - 1 < len(ids) - 2:
        raise InputError(
            f"{checkpoint.folder}: the chat template must put two images into the user turn with "
            f"text around each; it gave {len(places)} image tokens"
        )
    first, second = places
    return PromptTokens(
        tuple(ids[:first]), tuple(ids[first + 1 : second]), tuple(ids[second + 1 :]), image
    )


def answer_ids(tokenizer: Any, words: AnswerWords = _USUAL, prompt: str = "") -> tuple[int, int]:
    """Return the first tokens of what says "two people" and "the same person" (No and Yes).

    Words of a template's own are looked up behind the `prompt`, where they must be one token each:
    of longer ones the rest would go unread.

    Raises
    ------
    InputError
        Two words begin alike, or one of a template's own is no token.
    """
    read = _first if words == _USUAL else _only
    no, yes = (read(tokenizer, word, prompt) for word in (words.different, words.same))
    if no == yes:
        raise InputError(
            f"the tokenizer gives {words.different!r} and {words.same!r} the same first token"
        )
    return no, yes


def _first(tokenizer: Any, word: str, _prompt: str) -> int:
    return token_ids(tokenizer, word)[0]


def _only(tokenizer: Any, word: str, prompt: str) -> int:
    alone = token_ids(tokenizer, word)
    if len(alone) != 1 or token_ids(tokenizer, prompt + word)[-1] != alone[0]:
        raise InputError(
            f"the prompt's answers: {word!r} is no single token of this tokenizer where the answer "
            'begins; name a word that is one, as "yes", just as the model writes it'
        )
    return alone[0]


def token_ids(tokenizer: Any, text: str) -> Sequence[int]:
    """Tokenise without adding anything."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _turn(role: str, *parts: str | ImageSlot) -> dict[str, Any]:
    return {"role": role, "content": [_part(part) for part in parts]}


def _part(part: str | ImageSlot) -> dict[str, str]:
    return {"type": "image"} if isinstance(part, ImageSlot) else {"type": "text", "text": part}
