"""An int8 model and its float model differ by the rounding of activations alone."""

import numpy as np
import onnx
import pytest
from int8_models import NODES, TENSORS, int8, kinds, relative, samples, tiny

from onnxcp.quantization.dequantize import dequantised
from onnxcp.quantization.scheme import Scheme
from onnxcp.runtime.ort import runtime
from onnxcp.runtime.providers import Target

SCHEMES = {
    "unsigned": Scheme(),
    "signed": Scheme(activations="int8"),
    "by tensor": Scheme(per_channel=False),
    "clipped": Scheme(method="percentile", percentile=90),
    "windows float": Scheme(floats=("second",)),
    "uncorrected": Scheme(correct_bias=False),
}
HEAD = NODES + "[flat] f = Flatten (y) [head] g = Gemm <transB = 1> (f, w3, b3)"
WHOLE = {**TENSORS, "w3": np.random.default_rng(0).standard_normal((5, 288)) / 17, "b3": np.ones(5)}


def unoptimised(proto, feeds):
    """Outputs of a model as it is written: the runtime's optimizations would round more."""
    ort = runtime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    names = Target.named("cpu", 1).provider.ort_name
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=[names])
    return session.run(None, dict(feeds))[0]


def finer(proto, factor=2**16):
    """The int8 model with activations in 2¹⁶ times smaller steps of 32 bits, by arithmetic in
    nodes of its own: DequantizeLinear(QuantizeLinear(x)) becomes round(clip(x)·f/s)·s/f."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    rounds = {n.output[0]: n for n in made.graph.node if n.op_type == "QuantizeLinear"}
    nodes = []
    for node in made.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in rounds:
            pair = rounds[node.input[0]]
            scale, zero = stored[pair.input[1]], stored[pair.input[2]]
            limits, name = np.iinfo(zero.dtype), node.output[0]
            numbers = {
                "low": (limits.min - int(zero)) * scale,
                "high": (limits.max - int(zero)) * scale,
                "step": scale / factor,
            }
            made.graph.initializer.extend(
                onnx.numpy_helper.from_array(np.float32(v), f"{name}.{k}")
                for k, v in numbers.items()
            )
            nodes += [
                onnx.helper.make_node(op, inputs, [output])
                for op, inputs, output in (
                    ("Max", [pair.input[0], f"{name}.low"], f"{name}.1"),
                    ("Min", [f"{name}.1", f"{name}.high"], f"{name}.2"),
                    ("Div", [f"{name}.2", f"{name}.step"], f"{name}.3"),
                    ("Round", [f"{name}.3"], f"{name}.4"),
                    ("Mul", [f"{name}.4", f"{name}.step"], name),
                )
            ]
        elif node.op_type != "QuantizeLinear":
            nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_it_is_what_the_int8_model_tends_to_as_steps_of_activations_shrink(tmp_path, scheme):
    proto = int8(
        tiny(tmp_path, HEAD, WHOLE, interface="float[N,4,9,8] x) => (float[N,a] g"), scheme
    )
    feeds = samples().read(0, 8)
    made = dequantised(proto)
    onnx.checker.check_model(made, full_check=True)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(made))
    assert {t.data_type for t in made.graph.initializer} == {onnx.TensorProto.FLOAT}
    assert relative(unoptimised(finer(proto), feeds), unoptimised(made, feeds)) < 1e-4
    assert 1e-4 < relative(unoptimised(proto, feeds), unoptimised(made, feeds)) < 0.05
