"""Models in torch: an ONNX model as a module, checked against ONNX Runtime, and trained.

The only package, besides `forms.device`, that imports torch.
"""

from onnxcp.finetune.graph import Network
from onnxcp.finetune.parity import check_parity
from onnxcp.finetune.recipe import Recipe
from onnxcp.finetune.support import unsupported
from onnxcp.finetune.training import Lesson, Trained, has_device, train

__all__ = [
    "Lesson",
    "Network",
    "Recipe",
    "Trained",
    "check_parity",
    "has_device",
    "train",
    "unsupported",
]
