"""Loading with transformers: quietly, from local files, and nothing left to chance."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from murank import InputError


def load_model(kind: Any, folder: Path, **settings: Any) -> Any:
    """Return a model in eval mode, every weight of which came from the folder's safetensors.

    Raises
    ------
    InputError
        The weights cannot be read, or some are missing: transformers would make them up.
    """
    from safetensors import SafetensorError

    with quiet():
        try:
            model, info = kind.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **settings,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{folder} cannot be loaded: {one_line(error)}") from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise InputError(f"{folder} lacks weights, or has them in another shape: {missing[:3]}")
    return model.eval()


def one_line(error: Exception) -> str:
    """Return what an exception says, on one line and not at length."""
    return " ".join(str(error).split())[:300]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep bars and guesses of transformers off the screen; its exceptions still come through."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; InputError names the file."""
    try:
        data = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{file} must hold a JSON object")
    return data
