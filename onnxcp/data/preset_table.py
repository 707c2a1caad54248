"""The presets of preprocessing by name.

To add one: a `Preprocess` in a module, and a row here, which is imported when it is first used.
"""

from typing import TYPE_CHECKING

from onnxcp.options.table import Table

if TYPE_CHECKING:
    from onnxcp.data.preprocess import Preprocess

PRESETS: "Table[Preprocess]" = Table(
    {
        "none": "onnxcp.data.preprocess:NONE",
        "unit": "onnxcp.data.preprocess:UNIT",
        "cifar10": "onnxcp.data.preprocess:CIFAR10",
        "imagenet": "onnxcp.data.preprocess:IMAGENET",
    }
)
