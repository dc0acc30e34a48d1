"""Loading with transformers: quietly, from local files, and nothing left to chance."""

import contextlib
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
    with quiet():
        try:
            model, info = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **settings,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder} cannot be loaded: {error}") from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise InputError(f"{folder} lacks weights, or has them in another shape: {missing[:3]}")
    return model.eval()


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
