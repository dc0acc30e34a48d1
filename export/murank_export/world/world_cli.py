"""`murank world`: a synthetic data set of person crops, in Market-1501's layout."""

import argparse
from dataclasses import fields
from pathlib import Path

from murank.cli.output import say, say_json
from murank.cli.parser import Parser, positive
from murank.cli.progress import ProgressLine
from murank.cli.rerank_sheet import check_sheet
from murank.files.atomic import write_files
from murank_export.world import domain_names
from murank_export.world.market import WorldSettings, draw_sheet, write_world


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank world",
        description="Draw people as cameras of a made-up place see them: query/, "
        "bounding_box_test/ and, with --train-people, bounding_box_train/, named as in "
        f"Market-1501. Domains: {', '.join(domain_names())}.",
    )
    result.add_argument("-o", "--output", required=True, metavar="DIR", type=Path)
    result.add_argument("--domain", required=True, metavar="NAME", help="what kind of place")
    result.add_argument("--people", type=positive, default=80, help="to be found (80)")
    result.add_argument("--train-people", type=int, default=0, help="others, to train on (0)")
    result.add_argument("--distractors", type=int, default=80, help="images of strangers (80)")
    result.add_argument("--cameras", type=positive, default=6, help="of the place (6)")
    result.add_argument("--seen-by", type=positive, default=4, help="cameras see a person (4)")
    result.add_argument("--shots", type=positive, default=2, help="of a person by a camera (2)")
    result.add_argument(
        "--look-alikes", type=float, default=0.5, metavar="X",
        help="share of people dressed as another but for a detail or two (0.5)",
    )  # fmt: skip
    result.add_argument("--details", type=positive, default=2, help="they differ in, at most (2)")
    result.add_argument("--seed", type=int, default=0, help="of the people (0)")
    result.add_argument("--place", type=int, default=0, help="another place of that kind (0)")
    result.add_argument("--sheet", type=Path, metavar="F.png", help="a picture of some of them")
    result.add_argument("--overwrite", action="store_true", help="replace an older world there")
    result.add_argument("--json", action="store_true", help="print JSON")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    settings = WorldSettings(**{one.name: getattr(args, one.name) for one in fields(WorldSettings)})
    check_sheet(args)
    with ProgressLine(quiet=args.quiet) as line:
        counts = write_world(
            args.output, settings, overwrite=args.overwrite, progress=line.part("draw")
        )
    if args.sheet is not None:
        sheet = draw_sheet(settings)
        write_files(args.sheet.parent, {args.sheet.name: lambda file: sheet.save(file, "PNG")})
    if args.json:
        say_json({"folder": str(args.output), "images": counts})
    else:
        images = ", ".join(f"{count} in {name}/" for name, count in counts.items())
        say(f"{args.output}: {images}")
    return 0
