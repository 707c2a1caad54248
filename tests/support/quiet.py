"""A machine on which everything takes as long as its model says, and nothing else runs."""

import math

import onnx

from onnxcp.graph import shapes
from onnxcp.measure import adaptive_turns, benchmark, compare
from onnxcp.measure.timing import Timing
from onnxcp.optimization import exact
from onnxcp.runtime import sessions

TIMED = (adaptive_turns, benchmark, compare, exact)
NODE, ELEMENT = 1e-6, 0.1e-9  # seconds of any node, and of each number that it makes
DENSE, DEPTHWISE = 0.02e-9, 0.1e-9  # seconds of a multiply-add
INT8 = 0.4  # of that, where weights are quantized


def seconds(model, feeds):
    """What one inference takes: a roofline of nodes, numbers and multiply-adds."""
    known = shapes.infer(model, {name: array.shape for name, array in feeds.items()})
    nodes = model.graph.node
    widened = {n.output[0]: n.input[0] for n in nodes if n.op_type == "DequantizeLinear"}
    return sum(_of_node(node, known, widened) for node in nodes)


def _of_node(node, known, widened):
    if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Identity", "Constant"):
        return 0.0
    made = math.prod(known.get(node.output[0], (0,)))  # 0: inference cannot tell
    total = NODE + ELEMENT * made
    if node.op_type == "Conv":
        weight = node.input[1]
        kernel = known[widened.get(weight, weight)]
        rate = (DEPTHWISE if kernel[1] == 1 else DENSE) * (INT8 if weight in widened else 1)
        total += rate * made * math.prod(kernel[1:])
    return total


def take_turns(subjects, clock, *, turns, progress=lambda _: None, **_):
    """In place of `benchmark.take_turns`: everything is run once, and its time known."""
    for subject in subjects:
        subject()
    progress(turns)
    return tuple(Timing((subject.seconds,) * turns) for subject in subjects)


class Run:
    def __init__(self, run, seconds):
        self._run, self.seconds = run, seconds

    def __call__(self):
        self._run()


def install(patch):
    """Make this machine that one, for as long as a MonkeyPatch lasts."""
    opened, bound = sessions._session, sessions.Runner.bound

    def session(model, where, target):
        made = opened(model, where, target)
        made.source = model
        return made

    def timed(self, feeds):
        source = self.session.source
        model = onnx.load(source) if isinstance(source, str) else onnx.load_from_string(source)
        return Run(bound(self, feeds), seconds(model, feeds))

    patch.setattr(sessions, "_session", session)
    patch.setattr(sessions.Runner, "bound", timed)
    for module in TIMED:
        patch.setattr(module, "take_turns", take_turns)
