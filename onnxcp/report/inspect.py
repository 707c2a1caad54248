"""What `inspect` shows: a model's layers as a table, and as JSON for programs."""

import json
import textwrap
from dataclasses import asdict

from onnxcp.escape import shown
from onnxcp.latency.listing import ELIGIBLE, Listing, Row, total_macs
from onnxcp.words import count


def as_json(listing: Listing) -> str:
    """The listing for programs."""
    rows = [
        {
            **asdict(r.layer),
            "eligible": r.status == ELIGIBLE,
            "reason": r.status,
            "ms": r.milliseconds,
        }
        for r in listing.rows
    ]
    document = {
        "model": listing.model,
        "macs": listing.macs,
        "layers": rows,
        "notes": list(listing.notes),
    }
    return json.dumps(document, indent=2)


def as_text(listing: Listing, width: int) -> str:
    """A table as wide as the terminal; reasons are numbered and stand in full below it."""
    listing = shown(listing)
    reasons = list(dict.fromkeys(r.status for r in listing.rows if r.status != ELIGIBLE))
    timed = any(r.milliseconds is not None for r in listing.rows)
    longest = max((len(r.layer.name) for r in listing.rows), default=4)
    name = max(12, min(longest + 2, width - 58 - 9 * timed))
    head = (
        f"{'layer':<{name}}{'op':<6}{'weight':<14}{'stride':<7}{'group':>6}{'macs':>7}{'share':>7}"
    )
    lines = [head + (f"{'ms':>9}" if timed else "") + "  status"]
    lines += [_line(row, listing.macs, name, timed, reasons) for row in listing.rows]
    notes = [
        textwrap.fill(f"[{number}] {reason}", width, subsequent_indent="    ")
        for number, reason in enumerate(reasons, 1)
    ]
    said = [textwrap.fill(note, width, subsequent_indent="    ") for note in listing.notes]
    return "\n".join([*lines, "", *notes, *_totals(listing), *said])


def _totals(listing: Listing) -> list[str]:
    eligible = [r.layer for r in listing.rows if r.status == ELIGIBLE]
    share = total_macs(eligible) / listing.macs if listing.macs else 0.0
    of_all = f", with {share:.0%} of {count(listing.macs)} multiply-adds" if listing.macs else ""
    lines = [f"{len(eligible)} of {len(listing.rows)} layers eligible{of_all}"]
    if listing.unknown:
        names = ", ".join(listing.unknown)
        lines.append(f"shapes unknown: pass <<input_shape>> for {names} to see costs")
    return lines


def _line(row: Row, macs: int, name: int, timed: bool, reasons: list[str]) -> str:
    layer = row.layer
    shape = "×".join(map(str, layer.shape)) if layer.shape else "?"
    stride = "×".join(map(str, layer.strides)) or "1"
    share = f"{layer.macs / macs:.1%}" if layer.macs and macs else ""
    ms = "" if row.milliseconds is None else f"{row.milliseconds:.3f}"
    label = layer.name if len(layer.name) < name else "…" + layer.name[-(name - 2) :]
    status = ELIGIBLE if row.status == ELIGIBLE else f"[{reasons.index(row.status) + 1}]"
    return (
        f"{label:<{name}}{layer.op[:5]:<6}{shape:<14}{stride:<7}{layer.group:>6}"
        f"{count(layer.macs):>7}{share:>7}{ms:>{9 * timed}}  {status}"
    )
