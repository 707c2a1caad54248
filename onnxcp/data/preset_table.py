"""Preprocessing presets by name.

To add one, define a `Preprocess` in a module and add a row here; the module is imported when the
preset is first used.
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
