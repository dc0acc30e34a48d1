"""What was proposed for an engine (`murank compare --store`), where a user names nothing else."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from murank.cli.sources import engine_scores, void_flags
from murank.folder.manifest import Manifest, MuDefaults, read_manifest
from murank.rerank.methods import METHODS


def defaults_of(manifest: Manifest, method: str) -> MuDefaults | None:
    """Return them; None also where a method cannot do what they say, for it needs mu."""
    found = manifest.mu_defaults.get(method)
    return None if found is not None and not found.alpha and METHODS[method].needs_mu else found


def note_of(found: MuDefaults, method: str, flags: str, void: Sequence[str] = ()) -> str:
    """Say what is taken, which flags are `void` with it, and how to take something else."""
    what = f"alpha {found.alpha:g} and {found.candidates} candidates"
    if not found.alpha:
        what = "the MLLM is not asked" + (f", {', '.join(void)} without effect" if void else "")
    return (
        f"{what}: the engine's own default for {method}, proposed on {found.queries} labelled "
        f"queries, alignment {found.alignment}; name {flags} for another choice"
    )


def is_of(found: MuDefaults, asked: str | None) -> bool:
    """Whether it was proposed on features aligned as `--align-cameras` asks; None: by default."""
    return asked in (None, "auto", found.alignment)


def take_defaults(args: argparse.Namespace) -> str | None:
    """Fill in the options of `murank rerank` that were left out; return a note where it does."""
    named = (args.option_alpha, args.top_k_candidates, args.gallery_mu, args.mu_gallery)
    if not engine_scores(args) or any(value is not None for value in named):
        return None
    found = defaults_of(read_manifest(Path(args.engine)), args.method)
    if found is None or not is_of(found, args.align_cameras):
        return None
    if found.alpha:
        args.option_alpha, args.top_k_candidates = found.alpha, found.candidates
    else:
        args.no_mu = True
    return note_of(found, args.method, "--alpha or --top-k-candidates", void_flags(args))
