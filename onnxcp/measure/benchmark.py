"""Timing of one model, or of two in turns, at one or several batch sizes.

With a precision, one model is timed in turns with its own conversion, and two models are both
converted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxcp.data.pairs import every_sample
from onnxcp.data.roles import Inputs, Sources, prepare
from onnxcp.data.samples import Samples
from onnxcp.data.split import MAX_CALIBRATION_SAMPLES
from onnxcp.errors import UsageError
from onnxcp.graph import io
from onnxcp.graph.input_specs import Shape
from onnxcp.measure.stopwatch import Stopwatch, stopwatch
from onnxcp.measure.timing import Speedup, Timing, speedup, take_turns
from onnxcp.options.duration import MOST_TURNS, DurationOptions
from onnxcp.progress import Progress
from onnxcp.quantization.convert import Deployer
from onnxcp.quantization.precision import FLOAT32, precision_of, refuse_without_kernels
from onnxcp.runtime.environment import environment
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.storage import temporary

TRIAL = 3  # turns that tell how many fit


@dataclass(frozen=True, slots=True)
class Run:
    """The times of all models at one batch size, measured in turns."""

    batch: int
    shapes: dict[str, Shape]
    timings: tuple[Timing, ...]

    @property
    def speedup(self) -> Speedup | None:
        """Of the second model over the first, where there are two."""
        return speedup(*self.timings) if len(self.timings) == 2 else None


@dataclass(frozen=True, slots=True)
class Timed:
    """One or two models at every requested batch size.

    `precision` is the requested one, `precisions` are those that the models compute in.
    """

    models: tuple[str, ...]
    runs: tuple[Run, ...]
    target: Target
    environment: dict[str, Any]
    precision: str = FLOAT32
    precisions: tuple[str, ...] = ()


def batch_sizes(text: str | None) -> tuple[int | None, ...]:
    """`8` or `1,8,32` as numbers; (None,), what the model or 1 says, for nothing.

    Raises:
        UsageError: not such a list.
    """
    if text is None:
        return (None,)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"<<batch={text}>>: give a number from 1, or several as 1,8,32")
    return tuple(dict.fromkeys(int(part) for part in parts))


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model file to be timed, with its name for the report."""

    name: str
    path: Path
    precision: str


def run(
    paths: Sequence[Path],
    sources: Sources,
    target: Target,
    length: DurationOptions,
    progress: Progress,
    batches: Sequence[int | None] = (None,),
    *,
    precision: str = FLOAT32,
    raise_opset: bool = False,
) -> Timed:
    """Time models on the same feeds, or what a precision makes of them.

    Raises:
        UsageError: the two models do not take the same inputs, or the provider gains nothing
            from the precision.
        OnnxcpError: an unreadable model or one that cannot become so, unfit data, or a
            provider that does not load.
    """
    refuse_without_kernels(precision, target)
    models = [io.load(path) for path in paths]
    given = [_inputs(models, replace(sources, batch=batch)) for batch in batches]
    subjects = [_Subject(str(m.path), m.path, precision_of(m.proto)) for m in models]
    with temporary.folder() as folder:
        if precision != FLOAT32:
            deployer = Deployer(
                precision,
                target,
                _calibrating(given[0], sources),
                given[0].calibration_batching,
                raise_opset,
                progress,
            )
            made = [_converted(model, deployer, folder) for model in models]
            subjects = made if len(made) > 1 else subjects + made
        runners = [open_runner(subject.path, target) for subject in subjects]
        runs = []
        for inputs in given:
            batch = next((shape[0] for shape in inputs.shapes.values() if shape), 1)
            bound = [r.bound(inputs.timed_feeds) for r in runners]
            timings = _time(bound, stopwatch(target), length, progress, batch)
            runs.append(Run(batch, dict(inputs.shapes), timings))
    return Timed(
        tuple(s.name for s in subjects),
        tuple(runs),
        target,
        environment(target),
        precision,
        tuple(s.precision for s in subjects),
    )


def _calibrating(inputs: Inputs, sources: Sources) -> Samples | None:
    """The samples for ranges; without calibration samples any others, since none evaluate here."""
    if sources.calibration:
        return inputs.calibration
    found = every_sample(inputs)
    return None if found is None else found.spaced(MAX_CALIBRATION_SAMPLES)


def _converted(model: io.Model, deployer: Deployer, folder: Path) -> _Subject:
    """A model in another precision, in a folder."""
    made = deployer.converted(model)
    number = len(list(folder.iterdir()))  # two models may have one name
    path = folder / f"{number}.{model.path.stem}.{deployer.precision}.onnx"
    io.save(made, path)
    return _Subject(f"{model.path} ({deployer.precision})", path, precision_of(made))


def _inputs(models: Sequence[io.Model], sources: Sources) -> Inputs:
    """The feeds, which all models must accept."""
    names = [sorted(s.name for s in m.inputs) for m in models]
    if names[0] != names[-1]:
        raise UsageError(
            f"{models[0].path} and {models[-1].path} take different inputs "
            f"({', '.join(names[0])} and {', '.join(names[-1])}); compare models with the "
            "same inputs and outputs"
        )
    found = [prepare(model.inputs, sources) for model in models]
    for name in names[0]:
        kinds = [_shown(inputs.timed_feeds[name]) for inputs in found]
        if kinds[0] != kinds[-1]:
            raise UsageError(
                f"input {name} is {kinds[0]} in {models[0].path} and {kinds[-1]} in "
                f"{models[-1].path}; compare models with the same inputs and outputs, or pass "
                "<<input_shape>>"
            )
    return found[0]


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} {'x'.join(map(str, array.shape))}"


def _time(
    subjects: Sequence[Callable[[], object]],
    watch: Stopwatch,
    length: DurationOptions,
    progress: Progress,
    batch: int,
) -> tuple[Timing, ...]:
    """The times of as many turns as the longer of both lengths needs, by a first estimate."""
    phase = f"benchmark, batch {batch}"
    warmup = max(1, length.warmup)
    trial = take_turns(subjects, watch, turns=TRIAL, warmup=warmup, must_tell=False)
    each = sum(t.median for t in trial)
    turns = min(MOST_TURNS, max(length.iterations, math.ceil(length.duration / each)))
    return take_turns(
        subjects,
        watch,
        turns=turns,
        warmup=0,
        progress=lambda done: progress(phase, done, turns),
    )
