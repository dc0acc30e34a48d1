"""Files in which other tools keep features: known by their first bytes or names, and not read.

Half of them can only be unpickled, which runs what is in them; the others would need libraries
that nothing else here needs.
"""

from pathlib import Path

RECIPES = "docs/formats.md, 'Features from other tools', has the lines that make an .npz of it"

_BY_BYTES = (
    (b"\x93NUMPY", "one array of NumPy (.npy)"),
    (b"MATLAB 7.3 MAT-file", "a MATLAB 7.3 file"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"ARROW1", "an Arrow (Feather) file"),
    (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", "a PyTorch file"),
    *((bytes((0x80, version)), "a pickle") for version in range(2, 6)),
)
_BY_NAME = {
    ".npy": "one array of NumPy (.npy)",
    ".mat": "a MATLAB file",
    ".h5": "an HDF5 file", ".hdf5": "an HDF5 file",
    ".feather": "an Arrow (Feather) file", ".arrow": "an Arrow (Feather) file",
    ".pt": "a PyTorch file", ".pth": "a PyTorch file", ".ckpt": "a PyTorch file",
    ".tar": "a PyTorch file or an archive",
    ".pkl": "a pickle", ".pickle": "a pickle",
    ".safetensors": "a file of safetensors",
    ".csv": "a table in text", ".tsv": "a table in text", ".txt": "a text",
    ".json": "JSON", ".jsonl": "JSON lines",
}  # fmt: skip
_MOST = 32  # bytes looked at


def other_format(path: Path) -> str | None:
    """Return what a file is, if other tools keep features in such ones; None: nobody knows."""
    with path.open("rb") as file:
        first = file.read(_MOST)
    told = next((what for magic, what in _BY_BYTES if first.startswith(magic)), None)
    if told is None and not first.startswith(b"PK"):
        told = _BY_NAME.get(path.suffix.lower())
    return told


def is_torch_archive(names: list[str]) -> bool:
    """Whether a ZIP archive of these members is what torch.save writes."""
    return any(name.endswith("/data.pkl") or name == "data.pkl" for name in names)
