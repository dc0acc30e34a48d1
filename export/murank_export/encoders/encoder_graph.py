"""Any image encoder as the engine's encoder graph: uint8 pixels in, unit features out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from murank import InputError
from murank.backends.onnx.session import Session, SessionSettings, onnxruntime
from murank.engine.neighbours import ROWS_FLOAT16, ROWS_FLOAT32
from murank.folder.contents import check_graph
from murank.images import Preprocessing
from murank_export.encoders.colours import IMAGENET_MEAN as IMAGENET_MEAN
from murank_export.encoders.colours import IMAGENET_STD as IMAGENET_STD
from murank_export.encoders.colours import colours_of
from murank_export.encoders.encoder_settings import EncoderSettings
from murank_export.encoders.feature_rows import choose_output, pooling_of
from murank_export.encoders.free_batch import free_batch
from murank_export.encoders.hf_encoder import export_hf_encoder
from murank_export.encoders.source_graph import SourceGraph, dims, is_half, read_source
from murank_export.encoders.surround import Surroundings, surround
from murank_export.sources.loading import one_line

_EXTERNAL_FROM = 100 << 20  # bytes of weights from which they go into a file of their own
_COMPARED = 3  # images that a freed graph is compared by
Note = Callable[[str], None]


@dataclass(frozen=True)
class ExportedEncoder:
    """The graph and how images are brought to it."""

    preprocessing: Preprocessing
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    rows: float  # how far apart two features of one image may be, by rounding alone


def export_encoder(
    source: Path, file: Path, settings: EncoderSettings, note: Note = lambda _text: None
) -> ExportedEncoder:
    """Write `file`: images [B,3,H,W] uint8 -> features [B,D] float32, rows of length 1.

    Parameters
    ----------
    source
        An .onnx file (images [B,3,H,W] or [B,H,W,3] -> features), or a Hugging Face folder of a
        vision model.
    file
        To be written; weights of over 100 MiB go into a file beside it.
    settings
        What the source does not say.
    note
        Told what was decided for the user, a line each.

    Raises
    ------
    InputError
        The source is of another kind, or its inputs and outputs do not fit.
    """
    if source.is_file() and source.suffix == ".onnx":
        how = replace(settings, resample=settings.resample or "bilinear")
        return _wrap(source, source, file, how, None, note)
    if not (source / "config.json").is_file():
        raise InputError(f"{source} is neither an .onnx file nor a Hugging Face folder")
    with TemporaryDirectory(dir=file.parent) as scratch:
        found = export_hf_encoder(source, Path(scratch), settings, note)
        how = replace(
            settings,
            size=(found.preprocessing.height, found.preprocessing.width),
            resample=settings.resample or found.preprocessing.resample,
            mean=settings.mean or found.mean,
            std=settings.std or found.std,
            output=found.output if settings.output is None else settings.output,
        )
        return _wrap(found.file, source, file, how, found.preprocessing.shortest_edge, note)


def _wrap(
    path: Path,
    source: Path,
    file: Path,
    settings: EncoderSettings,
    shortest_edge: int | None,
    note: Note,
) -> ExportedEncoder:
    """Put the graph in `path`, of what the user calls `source`, between pixels and rows."""
    taken = read_source(path, source, settings.size)
    colours = colours_of(taken, settings, source, note)
    output = choose_output(taken.model.graph, settings.output, source, note)
    shape = _output_shape(taken, output, source, file)
    pool = pooling_of(shape, settings.pool, source, note)
    around = Surroundings(taken, colours, output.name, shape, pool)
    rows = ROWS_FLOAT16 if is_half(taken.model.graph) else ROWS_FLOAT32
    if taken.batch is None:
        surround(taken.model, around)
        dim = _save_checked(taken.model, file, taken.size, source)
    else:
        dim = _save_freed(around, file, source, rows, note)
    how = Preprocessing(*taken.size, settings.resample or "bilinear", shortest_edge)
    return ExportedEncoder(how, colours.mean, colours.std, dim, rows)


def _output_shape(taken: SourceGraph, output: Any, source: Path, file: Path) -> tuple[int, ...]:
    """Return an output's shape, of some number of images: by inference, or else by running."""
    known = dims(output)
    if known and None not in known[1:]:
        return (known[0] or 1, *(one for one in known[1:] if one is not None))
    with TemporaryDirectory(dir=file.parent) as scratch:
        alone, graph = Path(scratch) / file.name, taken.model.graph
        said = list(graph.output)
        del graph.output[:]  # what they are said to be need not be true
        graph.output.append(onnx.helper.make_empty_tensor_value_info(output.name))
        _save(taken.model, alone)
        del graph.output[:]
        graph.output.extend(said)
        check_graph(alone, source)
        count, (height, width) = taken.batch or 1, taken.size
        lengths = (count, height, width, 3) if taken.channels_last else (count, 3, height, width)
        kind = onnx.helper.tensor_dtype_to_np_dtype(taken.kind)
        session = _session(alone, source)
        found = _run(session, {taken.images: np.zeros(lengths, kind)}, [output.name], source)
    return tuple(found.shape)


def _save_freed(around: Surroundings, file: Path, source: Path, rows: float, note: Note) -> int:
    """Save a graph of a fixed batch so that it takes any, or else for one image at a time."""
    taken = around.taken
    with TemporaryDirectory(dir=file.parent) as scratch:
        alone, free = (Path(scratch) / name / file.name for name in ("alone", "free"))
        for one in (alone, free):
            one.parent.mkdir()
        fixed = onnx.ModelProto()
        fixed.CopyFrom(taken.model)
        surround(fixed, replace(around, alone=True))
        dim = _save_checked(fixed, alone, taken.size, source, (1,))
        why = _why_not_free(around, free, alone, rows, source)
        for one in (free if why is None else alone).parent.iterdir():
            one.replace(file.parent / one.name)
    if why is None:
        note(f"{source}: its batch was fixed to {taken.batch}; it is freed, with the same features")
        return dim
    times = "" if taken.batch == 1 else f", each of them {taken.batch} times over"
    note(
        f"{source}: its batch is fixed to {taken.batch} and cannot be freed ({why}): images are "
        f"run one by one{times}; an export with a free batch (dynamic_axes) is faster"
    )
    return dim


def _why_not_free(
    around: Surroundings, free: Path, alone: Path, rows: float, source: Path
) -> str | None:
    """Save the freed graph, and compare its features with those of single images."""
    taken = around.taken
    try:
        free_batch(taken.model, taken.images, taken.batch or 1)
    except Exception as error:  # noqa: BLE001
        # Inference raises onnx's own kinds; the graph runs as it is.
        return one_line(error)
    try:
        surround(taken.model, around)
        _save_checked(taken.model, free, taken.size, source)
    except InputError:
        return "it does not run with more images"
    pixels = np.random.default_rng(0).integers(0, 256, (_COMPARED, 3, *taken.size), np.uint8)
    single, any_batch = (Session(one, SessionSettings("cpu")) for one in (alone, free))
    wanted = np.concatenate([_features(single, one[None]) for one in pixels])
    found = [_features(any_batch, pixels), _features(any_batch, pixels[::-1])[::-1]]
    apart = max(float(np.linalg.norm(one - wanted, axis=1).max()) for one in found)
    return None if apart <= rows else f"features differ by {apart:.1e}"  # NaN differs


def _features(session: Session, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    (values,) = session.run({"images": pixels}, ["features"])
    found: NDArray[np.float32] = values.numpy()
    return found


def _save(model: onnx.ModelProto, file: Path) -> None:
    if model.ByteSize() > _EXTERNAL_FROM:
        onnx.save(model, file, save_as_external_data=True, location=f"{file.name}.data")
    else:
        onnx.save(model, file)


def _save_checked(
    model: onnx.ModelProto,
    file: Path,
    size: tuple[int, int],
    source: Path,
    batches: Sequence[int] = (1, 3),
) -> int:
    """Save, run batches of these lengths, and return the length of a feature."""
    _save(model, file)
    check_graph(file, source)  # before it is run
    session = _session(file, source)
    shapes = [
        _run(session, {"images": np.zeros((batch, 3, *size), np.uint8)}, None, source).shape
        for batch in batches
    ]
    if {len(shape) for shape in shapes} != {2} or [s[0] for s in shapes] != [*batches]:
        raise InputError(f"{source} gives features of shape {shapes}; expected one row an image")
    return int(shapes[0][1])


def _session(file: Path, source: Path) -> Any:
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime raises its own kinds, one a status.
        raise InputError(f"{source} does not run: {one_line(error)}") from error


def _run(session: Any, inputs: Any, outputs: Sequence[str] | None, source: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = session.run(outputs, inputs)[0]
    except Exception as error:
        # The same of running.
        raise InputError(f"{source} does not run: {one_line(error)}") from error
    return found
