"""What to do where ONNX Runtime has no kernel for an operator of a model."""

import re

UNKNOWN = re.compile(r"is not a registered function/op|No Op registered for|No opset import for")
NO_KERNEL = re.compile(r"Could not find an implementation for|Failed to find kernel for")


def remedy(cause: str) -> str:
    """What to try where the runtime's words say that an operator is missing, after a "; "; else
    nothing."""
    if UNKNOWN.search(cause):
        return (
            "; operators of other libraries, such as plugins of TensorRT, do not run here: cut "
            "the model before them with onnx.utils.extract_model, optimize that part, and put the "
            "rest behind it again (`onnxcp inspect` shows the layers of the whole model)"
        )
    if NO_KERNEL.search(cause):
        return (
            "; this provider cannot compute that operator for these types or this opset: choose "
            "another <<provider>>, or export the model again with others"
        )
    return ""
