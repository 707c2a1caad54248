"""Forms: ways to write a kernel as a chain of cheaper convolutions.

To add one: a module with its refusals, fit, stages and reconstruction, and a row here. The
law tests run over every row.
"""

from onnxcp.forms.cp import CP3, CP4
from onnxcp.forms.effort import DRAFT, Effort
from onnxcp.forms.form import Fit, Form, Outcome, Shape

FORMS: dict[str, Form] = {
    "cp3": CP3,
    "cp4": CP4,
}

__all__ = ["DRAFT", "FORMS", "Effort", "Fit", "Form", "Outcome", "Shape"]
