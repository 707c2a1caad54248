"""The precision that a model computes in, and reasons why a model cannot become int8."""

from collections import Counter
from collections.abc import Iterator

import onnx

from onnxcp.errors import ModelError, UsageError
from onnxcp.graph import io
from onnxcp.graph.operators import DEQUANTIZE, RUNTIME, STANDARD, operator
from onnxcp.options.target import PRECISIONS
from onnxcp.runtime.providers import Target

FLOAT32, FLOAT16, INT8 = PRECISIONS
OPSET = 13  # QuantizeLinear knows channels from here on
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
INTEGERS = (  # what only a quantized model has, beside QLinear…: the standard's and ORT's
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear ConvInteger MatMulInteger QGemm "
    "MatMulIntegerToFloat DynamicQuantizeMatMul DynamicQuantizeLSTM QAttention MatMulNBits"
)
NARROW = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def refuse_without_kernels(precision: str, target: Target) -> None:
    """Raises UsageError, with the reason, if a precision has no benefit on a provider."""
    reason = target.provider.lacks.get(precision)
    if reason is not None:
        raise UsageError(f"<<precision={precision}>>: provider {target.provider.name}: {reason}")


def precision_of(proto: onnx.ModelProto) -> str:
    """The precision of a model: "int8" if any part is quantized, "float16" if any tensor is
    stored so, else the type of its tensors."""
    if quantized_already(proto) is not None:
        return INT8
    kinds = {t.data_type for t in io.tensors(proto)}
    if onnx.TensorProto.FLOAT16 in kinds:
        return FLOAT16
    if onnx.TensorProto.BFLOAT16 in kinds:
        return "bfloat16"
    is_double = onnx.TensorProto.DOUBLE in kinds and onnx.TensorProto.FLOAT not in kinds
    return "float64" if is_double else FLOAT32


def refuse_unfit(proto: onnx.ModelProto, where: str, *, raise_opset: bool = False) -> None:
    """Raises ModelError, with the reason, for a model that cannot become int8."""
    reason = quantized_already(proto)
    if reason is not None:
        raise ModelError(f"{where}: {reason}; give the float model that it was made of")
    narrow = next((t.name for t in io.tensors(proto) if t.data_type in NARROW), None)
    if narrow is not None:
        raise ModelError(
            f"{where}: a float16 model (tensor {narrow!r}): int8 is made from float32; export it "
            "in float32"
        )
    if io.is_large(proto):
        raise ModelError(
            f"{where}: over 2 GiB, which ONNX Runtime's quantizer cannot take; quantize parts"
        )
    if not raise_opset and (opset := opset_of(proto)) < OPSET:
        raise ModelError(
            f"{where}: opset {opset} has no quantization by channel, {OPSET} does; "
            "<<raise_opset>> lets it be raised, or export the model again"
        )


def quantized_already(proto: onnx.ModelProto) -> str | None:
    """Why a model counts as quantized, in whole or in part; None if it is not."""
    nodes = list(all_nodes(proto))
    kinds = Counter(operator(n) for n in nodes if is_integer(n))
    if not kinds:
        return None
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    written = {o for n in nodes if operator(n) in DEQUANTIZE for o in n.output}
    products = [n for n in nodes if operator(n) in PRODUCTS]
    plain = sum(n.input[1] not in written for n in products)  # by what they multiply with
    if not plain:
        return f"quantized already ({shown})"
    return f"quantized in part ({shown}; {plain} Conv, Gemm and MatMul still in float)"


def is_integer(node: onnx.NodeProto) -> bool:
    """Whether only a quantized model has such a node."""
    name = operator(node).removeprefix(RUNTIME)
    return name in INTEGERS.split() or name.startswith("QLinear")


def all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs and local functions included."""
    waiting = [*proto.graph.node, *(n for f in proto.functions for n in f.node)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [n for a in node.attribute for g in (a.g, *a.graphs) for n in g.node]


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operator set that a model uses."""
    return next((o.version for o in proto.opset_import if o.domain in STANDARD), OPSET)
