"""What `inspect` shows: every layer with its cost, and whether a chain could replace it."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from onnxcp.data.roles import Sources, prepare
from onnxcp.errors import TooBusy
from onnxcp.escape import shown
from onnxcp.graph import io
from onnxcp.graph.input_specs import known_shapes
from onnxcp.graph.layers import Layer
from onnxcp.latency.candidates import measure
from onnxcp.latency.tabulate import contexts
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.runtime.providers import Target
from onnxcp.runtime.survey import inferred, survey
from onnxcp.words import count

ELIGIBLE = "eligible"


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: `status` is "eligible" or the reason why not."""

    layer: Layer
    status: str
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A model's layers; `unknown` names inputs whose shape nothing fixed, `notes` say what
    else a user must know."""

    model: str
    rows: tuple[Row, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return total_macs([row.layer for row in self.rows])


def survey_layers(path: Path, sources: Sources, target: Target, *, profile: bool) -> Listing:
    """List a model's layers. Only `profile`, and shapes that ONNX can not infer, need a
    runtime.

    Raises:
        OnnxcpError: an unreadable model, or a shape that does not fit it.
    """
    model = io.load(path)
    given = known_shapes(model.inputs, batch=sources.batch, overrides=sources.input_shapes)
    found, skips = inferred(model, given)
    complete = len(given) == len(model.inputs)
    if profile or (complete and any(site.image is None for site in found)):
        inputs = prepare(model.inputs, sources)
        found, skips = survey(model, inputs.shapes, target, inputs.timed)
    times = {}
    if profile:
        timed = contexts(model, found, inputs)
        table = measure({s.name: () for s in found}, timed, target, stopwatch(target))
        busy = [row.busy for row in table.values() if row.busy is not None]
        if busy:
            raise TooBusy(busy[0])
        times = {name: 1e3 * row.dense for name, row in table.items()}
    rows = [Row(s.layer, ELIGIBLE, times.get(s.name)) for s in found]
    rows += [Row(s.layer, s.reason) for s in skips]
    unknown = tuple(s.name for s in model.inputs if s.name not in given)
    return Listing(str(path), tuple(rows), unknown, model.notes)


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
        lines.append(f"shapes unknown: pass --input-shape for {names} to see costs")
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


def total_macs(layers: Sequence[Layer]) -> int:
    """Multiply-adds of the layers that are known."""
    return sum(layer.macs or 0 for layer in layers)
