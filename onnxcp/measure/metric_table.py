"""The metrics by name.

To add one: a `Metric` in a module, and a row here, which is imported when it is first used.
"""

from typing import TYPE_CHECKING

from onnxcp.options.table import Table

if TYPE_CHECKING:
    from onnxcp.measure.metrics import Metric

METRICS: "Table[Metric]" = Table(
    {
        "top1": "onnxcp.measure.metrics:TOP1",
        "top5": "onnxcp.measure.metrics:TOP5",
        "agreement": "onnxcp.measure.metrics:AGREEMENT",
        "cosine": "onnxcp.measure.metrics:COSINE",
        "psnr": "onnxcp.measure.metrics:PSNR",
        "snr": "onnxcp.measure.metrics:SNR",
        "relative-error": "onnxcp.measure.metrics:RELATIVE_ERROR",
        "max-error": "onnxcp.measure.metrics:MAX_ERROR",
        "mae": "onnxcp.measure.metrics:MAE",
    }
)
