"""Prompt layouts: the order of texts and images in the one user turn.

paper         task, "Query:", query image, " Candidate:", candidate image, rules
prefix_first  task, rules, "Query:", query image, " Candidate:", candidate image

Whatever stands before the candidate image is computed once per query and shared by all of its
candidates. `prefix_first` moves the rules there, which leaves a quarter of the tokens per pair.
Swapping query and candidate changes which image goes into which slot, never the text.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Literal, get_args

from murank.prompt.template import PromptTemplate

Layout = Literal["paper", "prefix_first"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class ImageSlot(Enum):
    """Where an image goes."""

    QUERY = "query"
    CANDIDATE = "candidate"


def user_turn(template: PromptTemplate, layout: Layout) -> Sequence[str | ImageSlot]:
    """Return texts and image slots of the user turn, in order (paper: as MUSE joins them)."""
    images = (template.query, ImageSlot.QUERY, template.candidate, ImageSlot.CANDIDATE)
    if layout == "paper":
        return [template.task_description, *images, template.rules_text]
    rules = [f"{template.rules_text}\n"] if template.rules_text else []
    return [template.task_description, *rules, *images]
