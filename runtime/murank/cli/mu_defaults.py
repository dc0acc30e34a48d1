"""What was proposed for an engine (`murank evaluate --store`), where a user names nothing else."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

from murank.cli.ranked_source import RankedSource
from murank.folder.manifest import Manifest, MuDefaults
from murank.rerank.methods import METHODS

_CANDIDATES = 10


def most_candidates(manifest: Manifest) -> int:
    """Return how many candidates a query serve every method of an engine by default."""
    return max([_CANDIDATES, *(defaults.candidates for defaults in manifest.mu_defaults.values())])


def defaults_of(stored: Mapping[str, MuDefaults], method: str) -> MuDefaults | None:
    """Return them; None also where a method cannot do what they say, for it needs mu."""
    defaults = stored.get(method)
    return (
        None
        if defaults is not None and not defaults.alpha and METHODS[method].needs_mu
        else defaults
    )


def note_of(defaults: MuDefaults, method: str, flags: str, void: Sequence[str] = ()) -> str:
    """Say what is taken, which flags are `void` with it, and how to take something else."""
    what = f"alpha {defaults.alpha:g} and {defaults.candidates} candidates"
    if not defaults.alpha:
        what = "the MLLM is not asked" + (f", {', '.join(void)} without effect" if void else "")
    return (
        f"{what}: the engine's own default for {method}, proposed on {defaults.queries} labelled "
        f"queries, alignment {defaults.alignment}; name {flags} for another choice"
    )


def is_of(defaults: MuDefaults, asked: str | None) -> bool:
    """Whether it was proposed on features aligned as `--align-cameras` asks; None: by default."""
    return asked in (None, "auto", defaults.alignment)


def take_defaults(
    args: argparse.Namespace, source: RankedSource
) -> tuple[RankedSource, float | None, str | None]:
    """Return the source with what was stored, alpha if that says it, and what to tell.

    Nothing is taken where alpha, candidates or mu was named, or there is gallery mu, too.
    """
    named = (args.option_alpha, args.candidates, args.mu)
    if source.job is None or source.mu is None or source.gallery_mu is not None or any(
        value is not None for value in named
    ):  # fmt: skip
        return source, args.option_alpha, None
    defaults = defaults_of(source.job.report.mu_defaults, args.method)
    if defaults is None or not is_of(defaults, source.alignment.level):
        return source, None, None
    note = note_of(defaults, args.method, "--alpha or --candidates")
    if not defaults.alpha:
        return replace(source, mu=None), None, note
    wanted = min(defaults.candidates, source.features.num_gallery)
    asked = int(source.mu.mu.shape[1])
    if wanted > asked:
        return source, None, (
            f"the engine's own default for {args.method} is not taken: it needs mu of {wanted} "
            f"candidates, and {asked} were asked (murank score --candidates)"
        )  # fmt: skip
    return source.with_candidates(wanted), defaults.alpha, note
