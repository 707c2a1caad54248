"""Remedies for operators that ONNX Runtime cannot compute."""

import re

UNKNOWN = re.compile(r"is not a registered function/op|No Op registered for|No opset import for")
NO_KERNEL = re.compile(r"Could not find an implementation for|Failed to find kernel for")


def remedy(cause: str) -> str:
    """A remedy, after "; ", if the runtime's message is about a missing operator; else empty."""
    if UNKNOWN.search(cause):
        return (
            "; operators of other libraries, such as TensorRT plugins, do not run here: cut the "
            "model before them with onnx.utils.extract_model, optimize that part, and append the "
            "rest again (`onnxcp inspect` shows the layers of the whole model)"
        )
    if NO_KERNEL.search(cause):
        return (
            "; this provider cannot compute that operator for these types or this opset: choose "
            "another <<provider>>, or export the model with other types or another opset"
        )
    return ""
