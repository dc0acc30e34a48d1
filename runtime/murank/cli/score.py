"""`murank score`: images to features, candidates and mu, in a job folder."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.cli.alignment_options import add_alignment, alignment_of
from murank.cli.engine_options import (
    CACHE_NEEDS,
    add_order,
    add_rare_running_options,
    add_running_options,
    opened,
)
from murank.cli.estimate_report import estimate_lines
from murank.cli.job_options import add_job_options, add_workers, skips_of
from murank.cli.job_sources import NEEDS, add_job_sources, job_source
from murank.cli.mu_defaults import most_candidates
from murank.cli.output import not_shown, notes, say, say_json
from murank.cli.parser import Parser, add_kernels, check_needs, given_flags, positive, rare_group
from murank.cli.progress import ProgressLine, add_progress, progress_file
from murank.cli.skipped_report import skipped_lines
from murank.datasets.named_ids import told_names
from murank.engine.engine import Part
from murank.jobs import Images, Job, JobFolder, Share, check_others, crew_of, estimate, prepare
from murank.jobs.embed import NoQueryError
from murank.jobs.needs import vision_cache_mb
from murank.rerank.features import FeatureSet
from murank.rerank.methods import METHODS
from murank.rerank.pipeline import StageClock

_OF_MU = ("candidates", "gallery_candidates", "order", "vision_cache_mb", "cache_dir")
_NAMED = (*NEEDS, "features")


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank score",
        usage="murank score ENGINE (--query Q --gallery G | --dataset NAME --root DIR | --features "
        "F.npz)\n                    -o JOB [options]",
        description="Embed images, choose each query's candidates, and ask the engine for their "
        "mu. features.npz, mu.npz and job.json stay in the job folder, for murank rerank. A run "
        "that was killed goes on where it stopped.",
    )
    result.add_argument("engine", metavar="ENGINE", help="folder of an engine")
    add_job_sources(result)
    group = result.add_argument_group("mu")
    group.add_argument(
        "--candidates", type=positive, metavar="K",
        help="gallery images a query whose mu is asked for (10, or as stored with the engine)",
    )  # fmt: skip
    group.add_argument("--no-mu", action="store_true", help="embed the images only")
    add_alignment(result)
    group = result.add_argument_group("output")
    group.add_argument("-o", "--output", required=True, metavar="JOB", help="the job folder")
    group.add_argument(
        "--overwrite", action="store_true", help="of a finished or another job: ask what is new"
    )
    group.add_argument("--json", action="store_true", help="print job.json, no summary")
    group.add_argument(
        "--estimate", action="store_true",
        help="say what it will take of time, memory and disk, and write nothing",
    )  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_progress(group)
    group = result.add_argument_group("engine")
    add_running_options(group)
    add_workers(group)
    group = rare_group(result)
    users = ", ".join(name for name, method in METHODS.items() if method.takes_gallery_mu)
    group.add_argument(
        "--gallery-candidates", type=positive, metavar="M",
        help=f"also mu of each gallery image and its M nearest: M x gallery pairs more [{users}]",
    )  # fmt: skip
    add_order(group)
    add_kernels(group, "of choosing candidates")
    add_job_options(group)
    add_rare_running_options(group)
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    _check_options(args)
    clock = StageClock()
    if args.estimate:
        return _estimate(args, clock)
    progress = progress_file(args, (args.engine, args.output))
    with ProgressLine(quiet=args.quiet, file=progress) as line:
        plan = _plan(args, clock)
        inputs = [Path(args.features)] if args.features is not None else []
        with (
            JobFolder(
                Path(args.output), plan.job, overwrite=args.overwrite, writes=plan.writes,
                inputs=inputs, share=plan.share,
            ) as folder,
            crew_of(args.workers, plan.engine) as crew,
        ):  # fmt: skip
            try:
                prepared = prepare(plan, folder, crew, clock=clock, report=line)
            except NoQueryError as error:
                if plan.share is None:
                    raise
                line.note(f"share {plan.share}: nothing to ask; {error}")
                return 0
            made = prepared.report
            report = {
                **made,
                "inputs": {
                    **{key: getattr(args, key) for key in given_flags(args, _NAMED)},
                    **told_names(plan.source.id_names),
                },
                "notes": [*made["notes"], *notes()],
                "seconds": clock.seconds,
            }
            if plan.share is None:
                folder.finish(report, features=prepared.fingerprint)
                if args.prune:
                    folder.prune(prepared.contents, prepared.paths)
    if args.json:
        say_json(report)
    else:
        say(*_lines(args.output, report, plan.share))
    return 0


def _estimate(args: argparse.Namespace, clock: StageClock) -> int:
    """Say what the job would take; nothing is written."""
    with ProgressLine(quiet=args.quiet) as line:
        plan = _plan(args, clock)
        made = estimate(plan, Path(args.output), args.workers.processes or 1, line)
    if args.json:
        say_json(made.to_json())
    else:
        say(*estimate_lines(made))
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raise UsageError for an option without effect."""
    check_needs(args, NEEDS | CACHE_NEEDS)
    if args.estimate:
        unused = ("share", "prune", "progress", "max_skipped", "mixed")
        for flag in given_flags(args, unused).values():
            raise UsageError(f"--estimate is of the whole job and writes nothing: leave out {flag}")
    if args.share is not None and args.prune:
        raise UsageError("--prune forgets what other shares need; pass it to the run that merges")
    if args.no_mu:
        for flag in given_flags(args, (*_OF_MU, "features")).values():
            raise UsageError(f"{flag} has no effect with --no-mu")


def _plan(args: argparse.Namespace, clock: StageClock) -> Job:
    """Return what to ask the engine for; everything cheap is checked."""
    embeds: list[Part] = ["encoder"] if args.features is None else []
    scores: list[Part] = [] if args.no_mu else ["scorer"]
    engine = opened(args, [*embeds, *scores])
    with clock.stage("load"):
        source, features = job_source(args)
    if scores and args.vision_cache_mb is None:
        count = args.workers.processes or 1
        room = vision_cache_mb(engine, len(features.paths), count)
        engine = replace(engine, options={**engine.options, "vision_cache_mb": room})
    candidates = None if args.no_mu else args.candidates or most_candidates(engine.manifest)
    plan = Job(
        engine, source, candidates=candidates, gallery_candidates=args.gallery_candidates,
        order=args.order or "given", skips=skips_of(args), mixed=args.mixed, share=args.share,
        device=args.kernels,
        alignment=alignment_of(args),
    )  # fmt: skip
    if plan.gallery_candidates is not None:
        check_others(features.num_gallery)
    if plan.share is not None and plan.share.count > features.num_query:
        raise UsageError(f"--share {plan.share}: there are only {features.num_query} queries")
    _check_alignment(plan, features)
    return plan


def _check_alignment(plan: Job, features: FeatureSet) -> None:
    """Raise what would show once all images are embedded."""
    made = isinstance(plan.source, Images)
    is_given = plan.alignment.given is not None
    plan.alignment.check(
        dim=plan.engine.encoder.dim if made else int(features.features.shape[1]),
        camids=features.gallery.camids,
        encoder_sha256=plan.engine.encoder_sha256 if made and is_given else features.encoder_sha256,
    )


def _lines(folder: str, report: dict[str, Any], share: Share | None) -> list[str]:
    counts = report["counts"]
    lines = [f"{counts['num_query']} queries, {counts['num_gallery']} gallery images"]
    new = f"{report['images_embedded']:,} images embedded, {report['pairs_asked']:,} pairs asked"
    lines.append(f"new in this run: {new}")
    if report["candidates"] is not None:
        lines.append(f"mu of {report['candidates']} candidates a query ({report['order']})")
    if report["gallery_candidates"] is not None:
        lines.append(f"mu of {report['gallery_candidates']} candidates a gallery image")
    alignment = report["alignment"]
    if alignment["level"] == "off" and alignment["note"] is not None:
        lines.append(alignment["note"])
    lines += [*not_shown(report["notes"]), *skipped_lines(report["skipped"])]
    if share is not None:
        return [*lines, f"share {share}: done; when all are, run it once without --share"]
    return [*lines, f"job: {folder}"]
