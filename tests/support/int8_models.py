"""Tiny float models, the int8 models made of them, and what both compute."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from int8_machine import exact
from written import model, weight

from onnxcp.data.samples import Batching, Samples
from onnxcp.graph import io
from onnxcp.quantization.static import FEWEST
from onnxcp.quantization.static import prepare as prepare_int8
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models/digits.onnx"
TARGET = Target.named("cpu", 1)
FREE = Batching(8, fixed=False)
UINT8, INT8 = onnx.TensorProto.UINT8, onnx.TensorProto.INT8

NODES = """
    [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    [norm] b = BatchNormalization (a, scale, bias, mean, var)
    [relu] c = Relu (b)
    [second] d = Conv <pads = [1, 1, 1, 1]> (c, w2, b2)
    [join] y = Add (d, x)
"""
TENSORS = {
    "w1": weight(6, 4, 3, 3),
    "scale": np.full(6, 0.5),
    "bias": np.arange(6) / 6,
    "mean": np.zeros(6),
    "var": np.ones(6),
    "w2": weight(4, 6, 3, 3),
    "b2": np.arange(4) / 4,
}


def samples(count=FEWEST, shape=(4, 9, 8), values=None):
    rows = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    if values is not None:
        rows[:] = values
    return Samples(lambda numbers: {"x": rows[list(numbers)]}, range(count), None, "made.npz")


def tiny(tmp_path, nodes=NODES, tensors=TENSORS, **more):
    return io.load(model(tmp_path / "model.onnx", nodes, tensors, **more)).proto


def int8(proto, scheme=None, given=None, batching=FREE, **more):
    given = samples() if given is None else given
    return prepare_int8(proto, given, batching, scheme or exact(), **more).quantized()


def stored(proto):
    return {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}


def kinds(proto):
    return Counter(node.op_type for node in proto.graph.node)


def found(proto, name):
    return next(n for n in proto.graph.node if n.name == name)


def parameters(proto, name):
    """Scale and zero point of what a DequantizeLinear gives a tensor's name to."""
    values = stored(proto)
    node = next(n for n in proto.graph.node if name in n.output)
    assert node.op_type == "DequantizeLinear"
    return values[node.input[1]], values[node.input[2]]


def in_float(proto):
    """Names of convolutions whose weight is stored in float32."""
    values = stored(proto)
    return {n.name for n in proto.graph.node if n.op_type == "Conv" and n.input[1] in values}


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(a)


def outputs(proto, feeds):
    return open_runner(proto.SerializeToString(), TARGET)(feeds)[0]


def plainly(proto, feeds):
    """The first output without any optimization of the runtime."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    provider = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=provider)
    return session.run(None, feeds)[0]
