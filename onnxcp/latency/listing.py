"""Every layer of a model with its cost, and whether a chain could replace it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxcp.data.roles import Sources, prepare
from onnxcp.errors import TooBusy
from onnxcp.graph import io
from onnxcp.graph.input_specs import Shape, known_shapes
from onnxcp.graph.layers import Layer
from onnxcp.graph.pass_table import PASSES
from onnxcp.graph.passes import applied
from onnxcp.graph.shapes import infer
from onnxcp.latency.candidates import measure
from onnxcp.latency.tabulate import contexts
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.runtime.providers import Target
from onnxcp.runtime.survey import inferred, survey
from onnxcp.words import plural

ELIGIBLE = "eligible"


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: `status` is "eligible" or the reason why not."""

    layer: Layer
    status: str
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A model's layers; `unknown` names inputs of unknown shape, `notes` are for the user."""

    model: str
    rows: tuple[Row, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return total_macs([row.layer for row in self.rows])


def survey_layers(path: Path, sources: Sources, target: Target, *, profile: bool) -> Listing:
    """List a model's layers. Only `profile`, and shapes that ONNX cannot infer, need a
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
        found, skips = survey(model, inputs.shapes, target, inputs.timed_feeds)
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
    notes = (*model.notes, *_exact_passes(model, given))
    return Listing(str(path), tuple(rows), unknown, notes)


def _exact_passes(model: io.Model, given: Mapping[str, Shape]) -> Iterator[str]:
    """The exact passes that would change the model, in order."""
    _, places = applied(model.proto, list(PASSES), infer(model.proto, given))
    if places:
        listed = ", ".join(f"{name} ({plural(count, 'place')})" for name, count in places.items())
        yield f"exact passes that apply: {listed}; optimize with <<exact>> measures what they gain"


def total_macs(layers: Sequence[Layer]) -> int:
    """Multiply-adds of the layers that are known."""
    return sum(layer.macs or 0 for layer in layers)
