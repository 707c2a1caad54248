"""Whether a model's shortcuts become convolutions: if that is measured to be faster."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxcp.data.roles import Inputs
from onnxcp.errors import PlanError, TooBusy
from onnxcp.graph import io, shapes, shortcuts
from onnxcp.latency.table import MATTERS
from onnxcp.measure.compare import time_models
from onnxcp.measure.timing import speedup
from onnxcp.progress import Progress, silent
from onnxcp.quantization.convert import for_time
from onnxcp.quantization.precision import FLOAT32
from onnxcp.quantization.scheme import fastest
from onnxcp.runtime.environment import environment
from onnxcp.runtime.providers import Target
from onnxcp.storage import cache, keys, temporary

TURNS, SECONDS = 300, 4.0  # of both models, at most

CODE = (
    "graph",
    "latency",
    "measure",
    "quantization",
    "runtime",
)  # of a verdict


def straight(model: io.Model, inputs: Inputs, names: Sequence[str]) -> io.Model:
    """The model with some of its shortcuts rewritten, in memory.

    Raises:
        PlanError: it has no such shortcut.
    """
    if not names:
        return model
    widths = _widths(model, inputs)
    for name in names:
        if name not in widths:
            raise PlanError(
                f"{model.path}: has no shortcut {name!r}, as the model that the plan or the "
                "latency table is of; give that one"
            )
    return _with(model, {name: widths[name] for name in names})


def straightened(
    model: io.Model,
    inputs: Inputs,
    target: Target,
    precision: str,
    *,
    kept_in: Path | None = None,
    progress: Progress = silent,
) -> io.Model:
    """The model with its shortcuts rewritten, in memory, if that is measured to be faster.

    The verdict is stored in the folder `kept_in`.
    """
    widths = _widths(model, inputs)
    if not widths:
        return model
    key = _identity(model, inputs, target, precision)
    is_faster = None if kept_in is None else cache.load_note(kept_in, key)
    made = _with(model, widths)
    if is_faster is None:
        progress("time the shortcuts", 0, 1)
        is_faster = _is_faster(model, made, inputs, target, precision)
        if kept_in is not None and is_faster is not None:
            cache.save_note(kept_in, key, is_faster)
    return made if is_faster else model


def to_time(path: Path, inputs: Inputs, precision: str, floats: Sequence[str] = ()) -> Path | bytes:
    """A whole model as it is timed in a precision, some nodes of it in float."""
    if precision == FLOAT32:
        return path
    serialized = io.load(path).proto.SerializeToString()
    return for_time(serialized, precision, inputs.timed_feeds, str(path), floats)


def _widths(model: io.Model, inputs: Inputs) -> dict[str, int]:
    """The channels that shortcuts read, by name."""
    found = shortcuts.find(model.proto)
    known = shapes.infer(model.proto, inputs.shapes) if found else {}
    return {s.name: known[s.source][1] for s in found if s.source in known}


def _with(model: io.Model, widths: Mapping[str, int]) -> io.Model:
    proto = shortcuts.rewritten(model.proto, widths)
    return replace(model, proto=proto, shortcuts=tuple(widths))


def _is_faster(
    model: io.Model, made: io.Model, inputs: Inputs, target: Target, precision: str
) -> bool | None:
    """Whether the rewritten model is faster; None if the machine is too busy to measure."""
    with temporary.folder() as folder:
        path = folder / "straight.onnx"
        io.save(made.proto, path, made.external)
        pair = [to_time(p, inputs, precision) for p in (model.path, path)]
        try:
            timings = time_models(pair, inputs.timed_feeds, target, turns=TURNS, seconds=SECONDS)
        except TooBusy:
            return None
    found = speedup(*timings)
    return found.is_faster


def _identity(model: io.Model, inputs: Inputs, target: Target, precision: str) -> str:
    about = {"model": model.sha256, "conditions": conditions(inputs, target, precision)}
    return keys.key("shortcuts", CODE, about)


def conditions(inputs: Inputs, target: Target, precision: str) -> list[Any]:
    """All that a model's time depends on, except the model and the machine's load, as plain
    values."""
    here = environment(target)
    return [
        [here.get(name) for name in MATTERS],
        [target.name, sorted(target.settings.items()), target.count, target.block],
        sorted((name, list(shape)) for name, shape in inputs.shapes.items()),
        [precision, "" if precision == FLOAT32 else fastest()],
    ]
