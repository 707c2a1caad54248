"""The latency table of a run: given, kept from an earlier run, or measured as time allows."""

from collections.abc import Sequence

from onnxcp.latency.candidates import Pace
from onnxcp.latency.context import Context
from onnxcp.latency.table import Table, from_document, to_document
from onnxcp.latency.tabulate import identity, tabulate
from onnxcp.measure.adaptive_turns import LEAST, SECONDS
from onnxcp.measure.time_budget import now
from onnxcp.optimization.run import Run
from onnxcp.storage import cache

CONTEXT = 1.3 * SECONDS  # for one context, its sessions included: a heuristic
HURRIED_OCTAVE = 1  # candidate ranks from one to its double


def latency_table(run: Run, found: Sequence[Context]) -> Table:
    """The table given; else that of an earlier run on this machine; else a new one."""
    if run.table is not None:
        return run.table
    settings, forms = run.settings, run.settings.forms
    pace = pace_of(run, found)
    about = (settings.target, forms, settings.precision, pace.octave)
    key = identity(run.model, found, run.inputs, *about)
    known = None if run.kept_in is None else cache.load_note(run.kept_in, key)
    if known is not None:
        return from_document(known)
    sites, target = run.chosen, settings.target
    how = (target, forms, settings.precision, settings.run.seed)
    made = tabulate(run.model, sites, found, run.inputs, *how, run.progress, pace)
    is_whole = all(context.key in made.rows for context in found)
    if run.kept_in is not None and is_whole and not made.is_busy:
        cache.save_note(run.kept_in, key, to_document(made))
    return made


def pace_of(run: Run, found: Sequence[Context], by: float | None = None) -> Pace:
    """How thoroughly there is time to measure, till a time on the clock of `time_budget` or
    in the share of the stage."""

    def end() -> float:
        return run.time.end_of("timing") if by is None else by

    last = run.time.timing_end_at_last if by is None else by
    count, left = len({context.key for context in found}), end() - now()
    if count * CONTEXT <= left:
        return Pace(end=end, last=last)
    return Pace(HURRIED_OCTAVE, max(LEAST, left / count), end, last)
