"""The check that chains compute what the dense kernels that they stand for compute.

Both models run on the same samples, with the outputs of all replaced nodes among their outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxcp.chain import Chain, Kernel, Stage
from onnxcp.graph import io
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import rewrite
from onnxcp.measure.judged_outputs import Judged
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.runtime.watch import write_watched
from onnxcp.storage import temporary
from onnxcp.verification import layerwise
from onnxcp.verification.difference import compare
from onnxcp.verification.saturation import bounded


@dataclass(frozen=True, slots=True)
class Ran:
    """Relative L2 errors by site.

    `relative_l2` is that of the tensor that differs most, `tolerance` its limit. `by_layer` says
    that outputs differ by more, and every chain was compared with its layer alone.
    """

    errors: Mapping[str, float]
    failures: tuple[str, ...]
    relative_l2: float
    tolerance: float
    samples: int
    by_layer: bool


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A rewritten model, and the original with the kernels that its chains stand for, by site.

    Kernels are [T, S / group, *window]. Small models are written without external data: ONNX
    Runtime 1.31 does not find the condition of an If there.
    """

    reference: io.Model
    candidate: io.Model
    replaced: Sequence[Site]
    chains: Mapping[str, Chain]
    kernels: Mapping[str, Kernel]

    def run(self, feeds: Sequence[Feeds], target: Target, judged: Judged) -> Ran:
        """Run and compare both models.

        Raises:
            OnnxcpError: one of them does not run.
        """
        graph = self.reference.proto.graph
        outputs = {s.name: graph.node[s.index].output[0] for s in self.replaced}
        tolerance = max(target.tolerance(s.kernel.dtype) for s in self.replaced)
        watched = [*judged.inside, *outputs.values()]
        compared = tuple(dict.fromkeys((*judged.comparable, *watched)))
        with temporary.folder() as folder:
            dense = write_watched(self._dense(), watched, folder / "dense.onnx")
            chained = write_watched(self.candidate.proto, watched, folder / "chained.onnx")
            verdict = compare(
                open_runner(dense, target, compared),
                open_runner(chained, target, compared),
                compared,
                feeds,
                most_l2=tolerance,
                bounded=bounded(graph),
            )
            errors = {o.output: o.relative_l2 for o in verdict.outputs}
            if not verdict.ok:  # rounding that adds up, or a chain that is wrong
                sources = {outputs[s.name]: s.source for s in self.replaced}
                errors = layerwise.differences(dense, chained, sources, target, feeds)
        wrong = [] if verdict.ok else layerwise.beyond(errors, tolerance)
        names = {tensor: name for name, tensor in outputs.items()}
        return Ran(
            {name: errors[tensor] for name, tensor in outputs.items()},
            tuple(_failure(names[tensor], tensor, errors[tensor], tolerance) for tensor in wrong),
            max(errors.values()),
            tolerance,
            verdict.samples,
            by_layer=not verdict.ok,
        )

    def _dense(self) -> onnx.ModelProto:
        """The original with the kernels that the chains stand for."""
        chains: dict[str, Chain] = {}
        for site in self.replaced:
            kernel, bias = self.kernels[site.name], self.chains[site.name][-1].bias
            chains[site.name] = (Stage("dense", kernel, site.geometry, site.group, bias),)
        return rewrite(self.reference.proto, chains, self.replaced, metadata={}).proto


def _failure(site: str, tensor: str, error: float, tolerance: float) -> str:
    return (
        f"{site}: tensor {tensor!r} is not what the chains stand for: relative L2 "
        f"error {error:.2g} exceeds {tolerance:.2g}"
    )
