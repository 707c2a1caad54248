"""Forms: ways to write a kernel as a chain of cheaper convolutions.

To add one: a module with its refusals, fit, stages and reconstruction, and a row here. The
law tests run over every row.
"""

from onnxcp.forms.cp import CP3, CP4
from onnxcp.forms.form import DRAFT, Effort, Fit, Form, Outcome, Shape
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

__all__ = ["DRAFT", "FORMS", "Effort", "Fit", "Form", "Outcome", "Shape"]
