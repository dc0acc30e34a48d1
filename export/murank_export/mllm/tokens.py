"""The prompt as tokens: what is static, what a query adds, what a candidate adds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from murank import InputError
from murank.prompt import ImageSlot, Layout, PromptTemplate, user_turn
from murank_export.graphs.geometry import Grid, token_positions
from murank_export.mllm.checkpoint import Checkpoint


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


def prompt_tokens(checkpoint: Checkpoint, template: PromptTemplate, layout: Layout) -> PromptTokens:
    """Tokenise the prompt in the checkpoint's own chat template.

    Raises
    ------
    InputError
        The chat template does not place two images with text around them.
    """
    turn = [{"role": "user", "content": [_part(part) for part in user_turn(template, layout)]}]
    text = checkpoint.tokenizer.apply_chat_template(
        turn,
        chat_template=checkpoint.chat_template,
        tokenize=False,
        add_generation_prompt=True,
    )
    if "<think>" in text:
        raise InputError(
            f"{checkpoint.folder} thinks before it answers, so its first token is no answer; take "
            "the Instruct checkpoint of the family"
        )
    ids = token_ids(checkpoint.tokenizer, text)
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


def answer_ids(tokenizer: Any) -> tuple[int, int]:
    """Return the first tokens of "No" and "Yes"."""
    no, yes = (token_ids(tokenizer, word)[0] for word in ("No", "Yes"))
    if no == yes:
        raise InputError('the tokenizer gives "No" and "Yes" the same first token')
    return no, yes


def token_ids(tokenizer: Any, text: str) -> Sequence[int]:
    """Tokenise without adding anything."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _part(part: str | ImageSlot) -> dict[str, str]:
    return {"type": "image"} if isinstance(part, ImageSlot) else {"type": "text", "text": part}
