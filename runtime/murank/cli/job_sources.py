"""What `murank score` looks at: images of two folders or lists, of a data set, or features."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from murank.cli.parser import Parser, positive
from murank.datasets import DATASETS, list_images, load_dataset
from murank.datasets.registry import dataset_name
from murank.datasets.shared_files import note_of_shared
from murank.jobs import GivenFeatures, Images
from murank.rerank.features import FeatureSet, check_has_paths, load_features

NEEDS = {
    "query": ("gallery",),
    "gallery": ("query",),
    "dataset": ("root",),
    "root": ("dataset",),
    "split": ("dataset",),
    "boxes": ("dataset",),
    "num_query": ("features",),
    "image_root": ("features",),
}


def add_job_sources(result: Parser) -> None:
    """Add the options that `job_source` reads."""
    group = result.add_argument_group("source: --query and --gallery, --dataset, or --features")
    one = group.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--query",
        metavar="DIR|LIST",
        help="folder of images, or a list (.csv, .parquet: path, pid, camid)",
    )
    group.add_argument("--gallery", metavar="DIR|LIST", help="the same, to be ranked")
    one.add_argument(
        "--dataset", type=dataset_name, choices=tuple(DATASETS), metavar="NAME",
        help=", ".join(DATASETS),
    )  # fmt: skip
    group.add_argument("--root", metavar="DIR", help="folder of the data set")
    group.add_argument("--split", type=int, metavar="N", help="which of its random halves (0)")
    group.add_argument("--boxes", choices=("detected", "labeled"), help="of cuhk03-np (detected)")
    one.add_argument("--features", metavar="F", help="features (.npz, .parquet), queries first")
    group.add_argument(
        "--image-root", metavar="DIR", help="where paths in F start (the current folder)"
    )
    group.add_argument("--num-query", type=positive, metavar="N", help="leading rows = queries")


def job_source(args: argparse.Namespace) -> tuple[Images | GivenFeatures, FeatureSet]:
    """Return the source, and its features or a stand-in with its paths and labels."""
    if args.features is not None:
        features = load_features(args.features, args.num_query)
        root = Path(args.image_root or "")
        if not args.no_mu:
            check_has_paths(features, args.features, "the MLLM looks at the images")
        return GivenFeatures(features, Path(args.features), root), features
    if args.dataset is None:
        images = Images.of(list_images(args.query), list_images(args.gallery))
        parts = images.paths[: images.num_query], images.paths[images.num_query :]
        images = replace(images, notes=images.notes + note_of_shared(*parts))
    else:
        dataset = load_dataset(args.dataset, args.root, split=args.split or 0, boxes=args.boxes)
        images = Images.of(dataset.query, dataset.gallery)
    return images, images.with_features(np.ones((len(images.paths), 1), np.float32))
