"""Models in torch: an ONNX model as a module, checked against ONNX Runtime.

The only package, besides `forms.device`, that imports torch.
"""

from onnxcp.finetune.graph import Network
from onnxcp.finetune.parity import check_parity
from onnxcp.finetune.support import unsupported

__all__ = ["Network", "check_parity", "unsupported"]
