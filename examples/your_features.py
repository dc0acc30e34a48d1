"""Your own features as a file that every verb of murank reads: queries first, then the gallery.

python examples/your_features.py people features.npz
murank rerank features.npz --method k-reciprocal
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from murank import FeatureSet, save_features


def embed(image: Path) -> NDArray[np.float32]:
    """Stands for your encoder: colours of six stripes from head to feet."""
    with Image.open(image) as opened:
        stripes = opened.convert("RGB").resize((1, 6), Image.Resampling.BOX)
    return np.asarray(stripes, np.float32).ravel()


def main(folder: Path, file: Path) -> None:
    """Embed a data set in Market-1501's layout; names tell person and camera."""
    queries, gallery = (
        sorted((folder / part).glob("*.jpg")) for part in ("query", "bounding_box_test")
    )
    images = [*queries, *gallery]
    features = FeatureSet(
        features=np.stack([embed(image) for image in images]),
        paths=np.array([str(image) for image in images]),
        pids=np.array([int(image.name.split("_")[0]) for image in images]),
        camids=np.array([int(image.name.split("_c")[1][0]) for image in images]),
        num_query=len(queries),
    )
    save_features(file, features, overwrite=True)
    print(f"{file}: {features.num_query} queries, {features.num_gallery} gallery images")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a data set, as murank world draws it")
    parser.add_argument("file", type=Path, help="to write: an .npz")
    args = parser.parse_args()
    if not (args.folder / "query").is_dir():
        parser.error(f"{args.folder} has no query/ and bounding_box_test/: murank world draws some")
    main(args.folder, args.file)
