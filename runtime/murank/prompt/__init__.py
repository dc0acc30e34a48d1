"""The question that the MLLM is asked: one definition for adaptation, export and serving.

Imports files.
"""

from murank.prompt.layout import LAYOUTS, ImageSlot, Layout, user_turn
from murank.prompt.template import AnswerWords, PromptTemplate, default_template, load_template

__all__ = [
    "LAYOUTS",
    "AnswerWords",
    "ImageSlot",
    "Layout",
    "PromptTemplate",
    "default_template",
    "load_template",
    "user_turn",
]
