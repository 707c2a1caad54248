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


def is_known(node: onnx.NodeProto) -> bool:
    """Whether ONNX itself defines a node's operator."""
    return bool(onnx.defs.has(node.op_type, domain_of(node)))
