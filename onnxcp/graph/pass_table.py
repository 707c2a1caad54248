"""Exact passes by name, in the order in which they are applied.

To add one: a `Pass` in a module of `graph.passes`, and a row here, which is imported when it is
first used.
"""

from typing import TYPE_CHECKING

from onnxcp.options.table import Table

if TYPE_CHECKING:
    from onnxcp.graph.passes.edit import Pass

PASSES: "Table[Pass]" = Table(
    {
        "unlist-weights": "onnxcp.graph.passes.weights:UNLIST",
        "hard-activations": "onnxcp.graph.passes.activations:HARD",
        "smooth-activations": "onnxcp.graph.passes.activations:SMOOTH",
        "leaky-relus": "onnxcp.graph.passes.activations:LEAKY",
        "fold-behind": "onnxcp.graph.passes.convolutions:BEHIND",
        "fold-before": "onnxcp.graph.passes.convolutions:BEFORE",
        "depthwise": "onnxcp.graph.passes.convolutions:DEPTHWISE",
        "two-dimensional": "onnxcp.graph.passes.one_dimensional:ROWS",
    }
)
