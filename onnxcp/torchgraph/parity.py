"""The check that a model in PyTorch computes what ONNX Runtime does."""

from collections.abc import Sequence

import numpy as np
import torch

from onnxcp.errors import ParityError
from onnxcp.graph.index import makers
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.operators import operator
from onnxcp.runtime.sessions import Runner
from onnxcp.runtime.watch import open_watched
from onnxcp.torchgraph.module import Network
from onnxcp.verification.difference import Difference, Verdict, compare
from onnxcp.verification.saturation import bounded

MIN_ERROR = 1e-7  # absolute: ONNX Runtime's sigmoid is only exact to 1.5e-8


def check_parity(network: Network, runner: Runner, feeds: Feeds, tolerance: float) -> float:
    """The largest relative L2 error of an output on these feeds.

    Outputs that differ by at most `MIN_ERROR` everywhere count as equal.

    Raises:
        ParityError: an output's error exceeds `tolerance`; names the first node whose results
            differ as much.
    """
    verdict = _compared(network, runner, feeds, tolerance, ())
    for output in verdict.outputs:
        if not _is_equal(output):
            raise ParityError(
                f"output {output.output!r} in PyTorch differs from ONNX Runtime: "
                f"{output.failure}; {_first(network, runner, feeds, tolerance)}; this is a bug "
                "in onnxcp; please report it with the model"
            )
    return max((o.relative_l2 for o in verdict.outputs if o.ok), default=0.0)


def _is_equal(output: Difference) -> bool:
    return output.ok or output.max_abs <= MIN_ERROR


def outputs(network: Network, feeds: Feeds, also: Sequence[str] = ()) -> list[np.ndarray]:
    """A network's outputs for arrays, then the tensors in `also`; runs on the network's device."""
    with torch.no_grad():
        fed = {n: torch.from_numpy(np.array(a)).to(network.device) for n, a in feeds.items()}
        return [y.cpu().numpy() for y in network(fed, also)]


def _compared(
    network: Network, runner: Runner, feeds: Feeds, tolerance: float, also: Sequence[str]
) -> Verdict:
    """The comparison of all outputs; the runner gives the tensors in `also` after its own."""
    return compare(
        runner,
        lambda fed: outputs(network, fed, also),
        runner.outputs,
        [feeds],
        most_l2=tolerance,
        bounded=bounded(network.proto.graph),
    )


def _first(network: Network, runner: Runner, feeds: Feeds, tolerance: float) -> str:
    """The first node whose outputs differ, in words.

    All tensors are made outputs, so that the runtime computes them without fusions.
    """
    nodes = network.proto.graph.node
    made = makers(n for n in nodes if operator(n) != "Constant")
    also = [name for name in made if name not in runner.outputs]
    watched = open_watched(network.proto, [*runner.outputs, *also], runner.target)
    verdict = _compared(network, watched, feeds, tolerance, also)
    differing = {o.output for o in verdict.outputs if not _is_equal(o)}
    for name, node in made.items():
        if name in differing:
            return f"they differ from node {node.name or name!r} ({operator(node)}) on"
    return "no node alone differs as much"
