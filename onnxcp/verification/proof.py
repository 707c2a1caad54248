"""The check before a rewritten model is written: its chains compute what they stand for.

`onnxcp verify` runs the same check, from the file alone.
"""

from pathlib import Path

import numpy as np

from onnxcp.data.roles import Inputs
from onnxcp.errors import ModelError, SurgeryError
from onnxcp.graph import io
from onnxcp.measure.judged_outputs import Judged
from onnxcp.progress import Progress, silent
from onnxcp.runtime.providers import Target
from onnxcp.verification import surgery
from onnxcp.verification.surgery import Surgery


def prove_surgery(
    model: io.Model,
    rewritten: Path,
    inputs: Inputs,
    target: Target,
    *,
    when: str = "",
    progress: Progress = silent,
    judged: Judged | None = None,
) -> Surgery:
    """Check the surgery of a staged model.

    `when` says in messages what was done to it last, such as "after training ".

    Raises:
        ModelError: the original's outputs are NaN or infinite, so that it cannot be compared.
        SurgeryError: a chain does not compute what it stands for.
    """
    candidate = io.load(rewritten)
    found = surgery.check(model, candidate, inputs, target.exact, progress=progress, judged=judged)
    if found.by_layer and judged is not None:
        _refuse_not_finite(model, judged, inputs, target.exact)
    if not found.ok:
        raise SurgeryError(
            f"{model.path}: {when}{found.failures[0]}; nothing was written; this is a bug in "
            "onnxcp: please report it with the model"
        )
    return found


def _refuse_not_finite(model: io.Model, judged: Judged, inputs: Inputs, target: Target) -> None:
    names = judged.comparable
    original = judged.opened(model.path, target, names)
    for feeds in inputs.surgery_feeds:
        for name, values in zip(names, original(feeds), strict=True):
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ModelError(
                    f"{model.path}: its output {name!r} is NaN or infinite before anything is "
                    "replaced, so nothing can be compared with it; check the model's weights, and "
                    "what it is fed"
                )
