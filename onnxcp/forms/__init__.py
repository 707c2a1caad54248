"""Forms: ways to write a kernel as a chain of cheaper convolutions.

To add one: a module with its refusals, fit, stages and reconstruction, and a row here. The
law tests run over every row.

What solves imports scipy and TensorLy where it calls them: a machine that only times chains
has neither.
"""

from onnxcp.forms.cp import CP3, CP4
from onnxcp.forms.form import Fit, Form, Outcome, Shape
from onnxcp.forms.solvers.effort import DRAFT, Effort
from onnxcp.forms.svd import SVD
from onnxcp.forms.tkd import TKD
from onnxcp.forms.tucker import TUCKER2

FORMS: dict[str, Form] = {
    "cp3": CP3,
    "cp4": CP4,
    "tkd": TKD,
    "tucker2": TUCKER2,
    "svd": SVD,
}

AUTO = ("cp3", "cp4", "svd")
"""Those tried where none is asked for: `svd` is the one that takes what has no window, and on
the kernels measured `tucker2` and `tkd` lose 1.6 to 4 times what `cp3` loses of a window at
equal multiply-adds."""

__all__ = ["AUTO", "DRAFT", "FORMS", "Effort", "Fit", "Form", "Outcome", "Shape"]
