"""Timing whole models against each other, in turns."""

from collections.abc import Callable, Sequence
from pathlib import Path

from onnxcp.graph.input_specs import Feeds
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.timing import Timing, take_turns
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner


def time_models(
    models: Sequence[Path | bytes],
    feeds: Feeds,
    target: Target,
    *,
    turns: int,
    seconds: float,
    warmup: int = 3,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Timing, ...]:
    """Time model files or serialized models in turns, as a user will run them, on the same feeds.

    Stops after `turns`, or `seconds` after the warm-up, as `take_turns`.

    Raises:
        OnnxcpError: a model does not run.
        TooBusy: other programs leave no times to compare.
    """
    runs = [open_runner(model, target).bound(feeds) for model in models]
    watch = stopwatch(target)
    return take_turns(runs, watch, turns=turns, warmup=warmup, seconds=seconds, progress=progress)
