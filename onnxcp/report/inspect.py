"""The report of `inspect`: a model's layers, or error and sensitivity against rank."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxcp.escape import shown
from onnxcp.latency.listing import ELIGIBLE, Listing, Row, total_macs
from onnxcp.report.table import Page, Table, names, numbers, texts
from onnxcp.words import count, plural

if TYPE_CHECKING:
    from onnxcp.fitting.rank_curves import RankCurve

COLUMNS = (
    names("layer"),
    texts("op"),
    texts("weight"),
    texts("stride"),
    *numbers("group", "multiply-adds", "share"),
)


def page(listing: Listing) -> Page:
    """The listing as a page: a row per layer, with the reason if it cannot be replaced."""
    is_timed = any(row.milliseconds is not None for row in listing.rows)
    columns = [*COLUMNS, *(numbers("ms") if is_timed else []), texts("status")]
    rows = [_cells(row, listing.macs, is_timed=is_timed) for row in listing.rows]
    headline, *unknown = _totals(listing)
    return Page(
        headline,
        _document(listing),
        [*unknown, *listing.notes],
        [("model", listing.model)],
        [Table(columns, rows)],
    )


def _document(listing: Listing) -> dict[str, Any]:
    rows = [
        {
            **asdict(r.layer),
            "eligible": r.status == ELIGIBLE,
            "reason": r.status,
            "ms": r.milliseconds,
        }
        for r in listing.rows
    ]
    return {
        "model": listing.model,
        "macs": listing.macs,
        "layers": rows,
        "notes": list(listing.notes),
    }


def curves_page(model: str, curves: "Sequence[RankCurve]") -> Page:
    """The curves as a page: a row per layer, form and rank."""
    rows = [
        (c.site, c.form, str(p.rank), f"{p.error:.4f}", f"{p.sensitivity:.3g}", count(p.macs))
        for c in curves
        for p in c.points
    ]
    columns = [
        names("layer"),
        texts("form"),
        *numbers("rank", "relative error", "sensitivity", "multiply-adds"),
    ]
    document = [asdict(curve) for curve in curves]
    headline = f"error and sensitivity against rank, {plural(len(curves), 'curve')}"
    return Page(headline, document, (), [("model", model)], [Table(columns, rows)])


def curves_as_text(curves: "Sequence[RankCurve]") -> str:
    """The curves as text: a line per layer and form, with the error at each rank."""
    curves = shown(list(curves))
    width = max((len(c.site) for c in curves), default=5) + 2
    lines = [f"{'layer':<{width}}{'form':<9}rank: relative error"]
    for curve in curves:
        points = "  ".join(f"{p.rank}: {p.error:.3f}" for p in curve.points)
        lines.append(f"{curve.site:<{width}}{curve.form:<9}{points}")
    return "\n".join(lines)


def as_text(listing: Listing, width: int) -> str:
    """The listing as a table of this width; reasons are numbered, and written below it."""
    listing = shown(listing)
    reasons = list(dict.fromkeys(r.status for r in listing.rows if r.status != ELIGIBLE))
    is_timed = any(r.milliseconds is not None for r in listing.rows)
    longest = max((len(r.layer.name) for r in listing.rows), default=4)
    name = max(12, min(longest + 2, width - 58 - 9 * is_timed))
    head = (
        f"{'layer':<{name}}{'op':<6}{'weight':<14}{'stride':<7}{'group':>6}{'macs':>7}{'share':>7}"
    )
    lines = [head + (f"{'ms':>9}" if is_timed else "") + "  status"]
    lines += [_line(row, listing.macs, name, is_timed, reasons) for row in listing.rows]
    numbered = [
        textwrap.fill(f"[{number}] {reason}", width, subsequent_indent="    ")
        for number, reason in enumerate(reasons, 1)
    ]
    notes = [textwrap.fill(note, width, subsequent_indent="    ") for note in listing.notes]
    return "\n".join([*lines, "", *numbered, *_totals(listing), *notes])


def _totals(listing: Listing) -> list[str]:
    eligible = [r.layer for r in listing.rows if r.status == ELIGIBLE]
    share = total_macs(eligible) / listing.macs if listing.macs else 0.0
    of_all = f", with {share:.0%} of {count(listing.macs)} multiply-adds" if listing.macs else ""
    lines = [f"{len(eligible)} of {len(listing.rows)} layers eligible{of_all}"]
    if listing.unknown:
        names = ", ".join(listing.unknown)
        lines.append(f"shapes unknown: pass <<input_shape>> for {names} to see costs")
    return lines


def _cells(row: Row, macs: int, *, is_timed: bool) -> tuple[str, ...]:
    """The cells of a layer's row."""
    layer = row.layer
    ms = "" if row.milliseconds is None else f"{row.milliseconds:.3f}"
    return (
        layer.name,
        layer.op,
        "×".join(map(str, layer.shape)) if layer.shape else "?",
        "×".join(map(str, layer.strides)) or "1",
        str(layer.group),
        count(layer.macs),
        f"{layer.macs / macs:.1%}" if layer.macs and macs else "",
        *([ms] if is_timed else []),
        row.status,
    )


def _line(row: Row, macs: int, name: int, timed: bool, reasons: list[str]) -> str:
    label, op, shape, stride, group, cost, share, ms, status = _cells(row, macs, is_timed=True)
    label = label if len(label) < name else "…" + label[-(name - 2) :]
    status = status if status == ELIGIBLE else f"[{reasons.index(status) + 1}]"
    return (
        f"{label:<{name}}{op[:5]:<6}{shape:<14}{stride:<7}{group:>6}"
        f"{cost:>7}{share:>7}{ms:>{9 * timed}}  {status}"
    )
