"""Which operator a node is: the standard's, or another of the same name.

A name means nothing without its domain: `my.Conv` may compute anything. Everything that
recognizes an operator asks here, so that no other domain's node is taken for the standard's.
"""

import onnx

STANDARD = ("", "ai.onnx")  # two ways to write the standard's domain
RUNTIME = "com.microsoft."  # before the names of ONNX Runtime's own operators
QUANTIZE = ("QuantizeLinear", f"{RUNTIME}QuantizeLinear")
DEQUANTIZE = ("DequantizeLinear", f"{RUNTIME}DequantizeLinear")


def domain_of(node: onnx.NodeProto) -> str:
    """The domain of a node's operator; "" is the standard's."""
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
    """Whether ONNX itself defines a node's operator."""
    return bool(onnx.defs.has(node.op_type, domain_of(node)))
