"""`murank synthesize`: a features file to try the other verbs with."""

import argparse
from pathlib import Path

from murank.cli.output import say
from murank.cli.parser import Parser, positive
from murank.rerank.features import check_file, save_features
from murank.synthetic import make_features


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank synthesize",
        description="Write synthetic features (random numbers, no person behind them).",
    )
    result.add_argument("-o", "--output", required=True, metavar="F.npz", type=Path)
    result.add_argument("--ids", type=positive, default=150, help="people (150)")
    result.add_argument("--cameras", type=positive, default=6, help="cameras (6)")
    result.add_argument("--images", type=positive, default=4, help="a person and camera (4)")
    result.add_argument("--distractors", type=int, default=600, help="strangers' images (600)")
    result.add_argument("--dim", type=positive, default=128, help="length of a feature (128)")
    result.add_argument("--camera-shift", type=float, help="size of what a camera adds (0.4)")
    result.add_argument("--noise", type=float, help="size of what an image adds (1)")
    result.add_argument("--seed", type=int, default=0, help="(0)")
    result.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    check_file(args.output, overwrite=args.overwrite)
    strengths = {
        key: value for key in ("camera_shift", "noise") if (value := getattr(args, key)) is not None
    }
    features = make_features(
        num_ids=args.ids, num_cameras=args.cameras, images_per_camera=args.images,
        num_distractors=args.distractors, dim=args.dim, seed=args.seed, **strengths,
    )  # fmt: skip
    save_features(args.output, features, overwrite=args.overwrite)
    say(f"{features.num_query} queries, {features.num_gallery} gallery images: {args.output}")
    return 0
