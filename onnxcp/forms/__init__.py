"""Forms: ways to write a kernel as a chain of cheaper convolutions.

To add one: a module with a subclass of `Form`, and a row here. The law tests run over every row.

A row is imported when it is first used, so that its name can be read without numpy. What solves
imports scipy and TensorLy where it calls them: a machine that only times chains has neither.
"""

import importlib
from typing import TYPE_CHECKING

from onnxcp.errors import UsageError
from onnxcp.options.table import Table

if TYPE_CHECKING:
    from onnxcp.forms.fit import Fit, Outcome, Shape
    from onnxcp.forms.form import Form
    from onnxcp.forms.solvers.effort import DRAFT, Effort

FORMS: "Table[Form]" = Table(
    {
        "cp3": "onnxcp.forms.cp:CP3",
        "cp4": "onnxcp.forms.cp:CP4",
        "tkd": "onnxcp.forms.tkd:TKD",
        "tucker2": "onnxcp.forms.tucker:TUCKER2",
        "svd": "onnxcp.forms.svd:SVD",
    }
)

AUTO = ("cp3", "cp4", "svd")
"""Those tried where none is asked for: `svd` is the one that takes what has no window, and on
the kernels measured `tucker2` and `tkd` lose 1.6 to 4 times what `cp3` loses of a window at
equal multiply-adds."""

__all__ = ["AUTO", "DRAFT", "FORMS", "Effort", "Fit", "Form", "Outcome", "Shape"]

_HOMES = {"DRAFT": "solvers.effort", "Effort": "solvers.effort", "Form": "form"}


def named(name: str) -> tuple[str, ...]:
    """The names of the forms to try: those of `auto`, or the one.

    Raises:
        UsageError: an unknown one.
    """
    if name != "auto" and name not in FORMS:
        raise UsageError(f"<<form={name}>>: unknown; choose auto, {', '.join(FORMS)}")
    return AUTO if name == "auto" else (name,)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "fit")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
