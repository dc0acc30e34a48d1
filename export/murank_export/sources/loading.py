"""Loading with transformers: quietly, from local files, and nothing left to chance."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from murank import InputError
from murank.files.stand_in import check_no_stand_in, misread
from murank_export.sources.quiet import quiet

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = {".bin", ".ckpt", ".gguf", ".npz", ".pt", ".pth", ".safetensors"}
_READ = {".jinja", ".json", ".safetensors", ".txt"}  # of a checkpoint
_OF_TRAINERS = ("optimizer", "random_states", "rng_state", "scaler", "scheduler", "training_args")


def load_model(
    kind: Any, folder: Path, config: Mapping[str, Any] | None = None, **settings: Any
) -> Any:
    """Return a model in eval mode, every weight of which came from the folder's safetensors.

    `config` is for the class of its config; None: the folder's own.

    Raises
    ------
    InputError
        The weights cannot be read, or some are missing: transformers would make them up. Or the
        folder leads transformers to weights that are not its own.
    """
    _check_own_weights(folder)
    with quiet():
        try:
            if config is not None:
                settings["config"] = kind.config_class(**config)
            model, info = kind.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **settings,
            )
        except MemoryError:
            raise
        except Exception as error:
            # A config of other types or sizes than meant fails wherever it is first used.
            raise InputError(f"{folder} cannot be loaded: {one_line(error)}") from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise InputError(f"{folder} lacks weights, or has them in another shape: {some(missing)}")
    return model.eval()


def _check_own_weights(folder: Path) -> None:
    """Refuse what would make transformers load other weights than the folder's, or change them."""
    if (folder / ADAPTER_CONFIG).exists():
        raise InputError(
            f"{folder} holds an {ADAPTER_CONFIG} beside a model, which transformers would follow "
            "to another folder's weights or apply to these: move the adapter to a folder of its own"
        )
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise InputError(f"{index} must name a file for each tensor (weight_map)")
    here = {file.name for file in folder.glob("*.safetensors")}
    for name in named.values():
        if name not in here:
            raise InputError(f"{index} names {str(name)!r}, which is no file of that folder")


def check_whole(folder: Path) -> None:
    """Raise InputError for a file of a checkpoint that something else lies in place of, or cut off.

    transformers would name no file, or make up what it lacks.
    """
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix in _READ:
            check_no_stand_in(file)
    tensor_names(folder)


def tensor_names(folder: Path) -> set[str]:
    """Return the names of all tensors of a folder.

    Raises
    ------
    InputError
        A file is damaged.
    """
    return {name for file in sorted(folder.glob("*.safetensors")) for name in _names(file)}


def _names(file: Path) -> Iterable[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as handle:
            return list(handle.keys())
    except SafetensorError as error:
        raise InputError(f"{file} is damaged: {one_line(error)}") from error


def check_no_other_weights(folder: Path, read: Callable[[Path], bool]) -> None:
    """Raise InputError if the folder holds weights beside those that are `read`.

    What trainers keep to go on from is none.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in _WEIGHTS and not read(file) and not file.name.startswith(_OF_TRAINERS):
            raise InputError(
                f"{folder} also holds {file.name}, which murank does not read: the model would "
                "answer without it; move it away if it is not needed"
            )


def one_line(error: Exception) -> str:
    """Return what an exception says, on one line and not at length."""
    return " ".join(str(error).split())[:300]


def some(names: Sequence[str], most: int = 5) -> str:
    """Return names for a sentence: the first of them, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; InputError names the file."""
    try:
        data = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise misread(file, f": {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise misread(file, f" is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{file} must hold a JSON object")
    return data
