"""The operator of a node: of the ONNX standard, or of another domain.

A name without its domain is ambiguous: `my.Conv` can compute anything. All code that recognizes
operators uses this module, so that no other domain's node is mistaken for a standard one.
"""

import onnx

STANDARD = ("", "ai.onnx")  # two ways to write the standard's domain
RUNTIME = "com.microsoft."  # before the names of ONNX Runtime's own operators
QUANTIZE = ("QuantizeLinear", f"{RUNTIME}QuantizeLinear")
DEQUANTIZE = ("DequantizeLinear", f"{RUNTIME}DequantizeLinear")


def domain_of(node: onnx.NodeProto) -> str:
    """The domain of a node's operator; "" for the ONNX standard."""
    return normalized(node.domain)


def normalized(domain: str) -> str:
    """A domain, the standard's as ""."""
    return "" if domain in STANDARD else domain


def operator(node: onnx.NodeProto) -> str:
    """The standard's operators by their plain name, others with their domain before it, as
    "com.microsoft.FusedConv". No name of the standard's has a dot."""
    domain = domain_of(node)
    return f"{domain}.{node.op_type}" if domain else str(node.op_type)


def drop_shadowing(proto: onnx.ModelProto) -> None:
    """Remove, in place, local functions under the names of ONNX's own operators: which of the two
    a node means is the runtime's choice, and ONNX Runtime takes the operator."""
    for place, function in reversed(list(enumerate(proto.functions))):
        if onnx.defs.has(function.name, normalized(function.domain)):
            del proto.functions[place]


def is_known(node: onnx.NodeProto) -> bool:
    """Whether the ONNX standard defines a node's operator."""
    return bool(onnx.defs.has(node.op_type, domain_of(node)))
