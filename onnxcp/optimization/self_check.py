"""Whether the model that a run made computes what its chains stand for."""

import numpy as np

from onnxcp.errors import ModelError, SurgeryError
from onnxcp.optimization.job import Job
from onnxcp.plan import Plan
from onnxcp.results import VerificationRecord
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.verification import layerwise
from onnxcp.verification.difference import compare
from onnxcp.verification.saturation import bounded


def checked(job: Job, plan: Plan) -> VerificationRecord:
    """Every changed site's output, and the model's, against dense reconstructed kernels; where
    rounding that adds up may be what differs, every chain by itself.

    Raises:
        SurgeryError: a chain does not compute what it stands for.
        ModelError: the original gives NaN or infinity, which nothing can be held against.
    """
    job.progress("check the surgery", 0, 1)
    replaced = [s for s in job.sites if s.name in plan.choices]
    tolerance = max(job.settings.target.tolerance(s.kernel.dtype) for s in replaced)
    target = job.settings.target.unhurried.exact
    paths, graph = job.build_watched(plan), job.model.proto.graph
    sources = {graph.node[s.index].output[0]: s.source for s in replaced}
    names = tuple(dict.fromkeys((*job.outputs.comparable, *sources)))
    dense, chained = (open_runner(path, target, names) for path in paths)
    feeds = job.inputs.surgery_feeds
    saturating = bounded(graph)
    verdict = compare(dense, chained, dense.outputs, feeds, most_l2=tolerance, bounded=saturating)
    if verdict.ok:
        return VerificationRecord(True, verdict.relative_l2, tolerance, verdict.samples)
    _refuse_not_finite(job, target)
    found = layerwise.differences(*paths, sources, target, feeds)
    for name in layerwise.beyond(found, tolerance):
        raise SurgeryError(
            f"{job.model.path}: tensor {name!r} of the rewritten model is not what its chain "
            f"stands for: relative L2 error {found[name]:.2g} exceeds {tolerance:.2g}. This is a "
            "bug in onnxcp: nothing was written; please report it with the model"
        )
    return VerificationRecord(True, max(found.values()), tolerance, verdict.samples)


def _refuse_not_finite(job: Job, target: Target) -> None:
    names = job.outputs.comparable
    original = job.outputs.opened(job.model.path, target, names)
    for feeds in job.inputs.surgery_feeds:
        for name, values in zip(names, original(feeds), strict=True):
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ModelError(
                    f"{job.model.path}: its output {name!r} is NaN or infinite before anything is "
                    "replaced, so nothing can be compared with it; check the model's weights, and "
                    "what it is fed"
                )
