"""Values of manifest.json, each held against what it may be before anything is made for it."""

import re
from typing import Annotated

from murank.files.records import Must

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

# So plain that no system reads a drive, a wildcard, a parent or another spelling into it.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_CLEAN = re.compile(rf"{_PART}(/{_PART})*")


# No model of the field comes near these; what is made for a size is made before any tensor is seen.
_LONGEST_NAME = 1024  # characters
_LARGEST_TOKEN_ID = 1 << 24
_LARGEST_DIM, _MOST_TOKENS = 1 << 16, 1 << 17
LARGEST_TAU = 1e6  # and its inverse the smallest


def at_most(largest: float) -> Must:
    """Return the condition of a number that is not above the largest."""
    return Must(lambda value: value <= largest, f"at most {largest}")


def is_clean_name(name: str) -> bool:
    """Whether a relative path, with forward slashes, stays inside the folder by its very look."""
    return _CLEAN.fullmatch(name) is not None


def _is_file_name(name: str) -> bool:
    return is_clean_name(name) and name != MANIFEST


SchemaVersion = Annotated[int, Must(lambda version: version == SCHEMA_VERSION, "1")]
Name = Annotated[
    str,
    Must(lambda text: text and text.isprintable(), "a printable text"),
    Must(lambda text: len(text) <= _LONGEST_NAME, f"of at most {_LONGEST_NAME} characters"),
]
Sha256 = Annotated[
    str, Must(re.compile("[0-9a-f]{64}").fullmatch, "a sha256 (64 lower-case hexadecimal digits)")
]
FileName = Annotated[
    str,
    Must(
        _is_file_name,
        "a path inside the folder: letters, digits, '_', '.', '-', '/' between the parts, "
        f"no part that begins with '.'; not {MANIFEST}",
    ),
    Must(lambda name: len(name) <= _LONGEST_NAME, f"of at most {_LONGEST_NAME} characters"),
]
Graph = Annotated[FileName, Must(lambda name: name.endswith(".onnx"), "the name of an .onnx file")]
Tensors = Annotated[
    FileName,
    Must(lambda name: name.endswith(".safetensors"), "the name of a .safetensors file"),
]
Count = Annotated[int, Must(lambda value: value >= 0, "at least 0")]
Size = Annotated[int, Must(lambda value: value >= 1, "at least 1")]
Dim = Annotated[Size, at_most(_LARGEST_DIM)]
TokenId = Annotated[Count, at_most(_LARGEST_TOKEN_ID)]
SomeTokens = Annotated[Count, at_most(_MOST_TOKENS)]
Tokens = Annotated[Size, at_most(_MOST_TOKENS)]
Mean = Annotated[
    tuple[float, float, float],
    Must(lambda values: max(map(abs, values)) <= LARGEST_TAU, "within +-1e6 in each channel"),
]
Std = Annotated[
    tuple[float, float, float],
    Must(lambda values: min(values) > 0, "above 0 in each channel"),
    Must(
        lambda values: min(values) >= 1 / LARGEST_TAU and max(values) <= LARGEST_TAU,
        "in 1e-6..1e6 in each channel",
    ),
]
Positive = Annotated[float, Must(lambda value: value > 0, "above 0")]
Temperature = Annotated[
    Positive,
    Must(lambda value: 1 / LARGEST_TAU <= value <= LARGEST_TAU, "in 1e-6..1e6"),
]
Share = Annotated[float, Must(lambda value: 0 <= value <= 1, "in 0..1")]
