"""The report of `profile`: a latency table in a few lines of text, and as a page."""

from onnxcp import escape
from onnxcp.latency.candidates import Latency
from onnxcp.latency.table import Check, Table, to_document
from onnxcp.quantization.precision import FLOAT32
from onnxcp.report import table as report
from onnxcp.report.table import Page, names, numbers, texts

COLUMNS = (
    names("key of the layers"),
    *numbers("ms", "candidates", "faster"),
    texts("fastest"),
    *numbers("its ms"),
)


def page(table: Table) -> Page:
    """The table as a page: a row per distinct layer, with its fastest candidate."""
    first, *others = as_text(table).splitlines()
    rows = [_row(key, latency) for key, latency in table.rows.items()]
    return Page(first, to_document(table), (), [("", line) for line in others], [_table(rows)])


def _table(rows: list[tuple[str, ...]]) -> report.Table:
    return report.Table(COLUMNS, rows)


def _row(key: str, latency: Latency) -> tuple[str, ...]:
    faster = [measured for measured in latency.tried if measured.is_faster]
    best = min(faster, key=lambda measured: measured.seconds, default=None)
    return (
        key,
        f"{1e3 * latency.dense:.3f}",
        str(len(latency.tried)),
        str(len(faster)),
        "" if best is None else f"{best.choice.form} rank {best.choice.rank}",
        "" if best is None else f"{1e3 * best.seconds:.3f}",
    )


def _in(precision: str) -> str:
    return "" if precision == FLOAT32 else f", in {precision}"


def _threads(table: Table) -> str:
    """The number of threads; a table of an earlier version left it to ONNX Runtime."""
    return f"{table.threads or 'all'} thread{'s' * (table.threads != 1)}"


def as_text(table: Table) -> str:
    """A summary of the table as text, for a terminal."""
    table = escape.shown(table)
    lines = [
        f"{table.model} on {table.environment['cpu']}, ONNX Runtime "
        f"{table.environment['onnxruntime']}, {table.provider}, "
        f"{_threads(table)}{_in(table.precision)}",
        f"{1e3 * table.before:.3f} ms as it is; {len(table.rows)} distinct layers, "
        f"{sum(len(row.tried) for row in table.rows.values())} candidates timed",
    ]
    busy = [row.busy for row in table.rows.values() if row.busy is not None]
    if busy:
        lines.append(f"{len(busy)} of these layers could not be measured: {busy[0]}")
    if table.shortcuts:
        lines.append(
            f"{1e3 * table.total:.3f} ms with strided slices as convolutions that compute the "
            f"same: {', '.join(table.shortcuts)}"
        )
    lines += [_checked_words(check) for check in table.checks]
    return "\n".join(lines if table.doubt is None else [*lines, table.doubt])


def _checked_words(check: Check) -> str:
    measured = f"{1e3 * check.measured:.3f} ms measured"
    if check.predicted <= 0:
        return f"check: the layers save more than the whole model takes; {measured}"
    return f"check: {1e3 * check.predicted:.3f} ms by the table, {measured} ({check.miss:+.1%})"
