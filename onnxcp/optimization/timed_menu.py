"""What a search chooses from: layers timed, their chains fitted and probed, as time allows.

Where a time budget ended the timing of layers, and calibration, fits and probes of those that are
timed leave something of their share, more layers are timed in it, and looked at likewise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxcp.latency.candidates import Latency, Pace, all_choices, measure, steps
from onnxcp.latency.context import Context
from onnxcp.latency.table import Table
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.time_budget import now
from onnxcp.optimization.calibration import learn_inputs
from onnxcp.optimization.menu import make_menu
from onnxcp.optimization.run import Run
from onnxcp.optimization.run_table import latency_table, pace_of
from onnxcp.optimization.scores import Court
from onnxcp.plan import Menu
from onnxcp.quantization.precision import INT8

AGAIN = 2.0  # times what the last look at the layers took: what one at more of them may take
SHARE = 0.5  # of the time that is left besides, for timing


@dataclass(frozen=True, slots=True, eq=False)
class TimedMenu:
    """The menu of a model and the times it is of; None where no chain is faster."""

    table: Table
    times: Mapping[str, Latency]
    menu: Menu | None


def timed_menu(run: Run, found: Sequence[Context], court: Court) -> TimedMenu:
    """Time a model's layers, and look at the chains that are faster. Raises as
    `latency_table` and `learn_inputs` do."""
    table: Table | None = latency_table(run, found)
    while table is not None:
        begun = now()
        seen = _seen(run, found, table, court)
        table = None if seen.menu is None else _more(run, found, table, AGAIN * (now() - begun))
    return seen


def _seen(run: Run, found: Sequence[Context], table: Table, court: Court) -> TimedMenu:
    """What there is to choose from by some times."""
    if run.table is None:
        found = [context for context in found if context.key in table.rows]
    times = table.of(found, run.settings.forms, str(run.settings.latency or run.model.path))
    wanted = [name for name, row in times.items() if steps(row)]
    if not wanted:
        return TimedMenu(table, times, None)
    learn_inputs(run, wanted)
    return TimedMenu(table, times, make_menu(run, times, table, court))


def _more(run: Run, found: Sequence[Context], table: Table, look: float) -> Table | None:
    """The times with those of more layers, where there is time to measure one and for another
    `look` at all; else None."""
    missing = [context for context in found if context.key not in table.rows]
    if run.table is not None or not missing:
        return None
    left = run.time.menu_end - now() - look
    usual = run.time.taken("time candidates") / max(1, len(table.rows))
    if usual > left:
        return None
    end = now() + max(usual, SHARE * left)
    rows = _measured(run, missing, pace_of(run, missing, end))
    return replace(table, rows={**table.rows, **rows})


def _measured(run: Run, missing: Sequence[Context], pace: Pace) -> dict[str, Latency]:
    settings = run.settings
    forms, target = settings.forms, settings.target
    choices = {c.site.name: all_choices(c.site, forms, target.block, pace.octave) for c in missing}
    times = measure(
        choices,
        missing,
        target,
        stopwatch(target),
        precision=settings.precision,
        seed=settings.run.seed,
        is_mixed=settings.precision == INT8,
        pace=pace,
        progress=run.progress,
    )
    return {c.key: times[c.site.name] for c in missing if c.site.name in times}
