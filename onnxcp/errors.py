"""All errors of onnxcp, as one tree.

    OnnxcpError
    ├── ModelError           the file is not a model that can be read, checked or run
    ├── BaselineError        the original is at chance, or gets unexpected inputs
    ├── DataError            samples cannot be read, or do not fit the model
    ├── UsageError           an option is invalid, contradicts another, or names nothing
    ├── OutputError          a file must not or cannot be written
    ├── PlanError            a plan names a site, form or rank the model does not have
    ├── TableError           a latency table is invalid, damaged, or of another model
    ├── WorkError            a work folder belongs to another run
    ├── ProviderError        an execution provider cannot be used on this machine
    │   └── MissingPackage   an optional package is not installed
    ├── TooBusy              other work on the machine makes timing impossible
    ├── ClusterError         a Dask cluster is unreachable, runs other versions, or was lost
    ├── UnsupportedError     PyTorch cannot compute some nodes, so the model cannot be trained
    ├── SurgeryError         the rewritten model does not compute what its chains stand for
    └── ParityError          a model in PyTorch does not compute what ONNX Runtime does

Values, not errors: a Conv that is not replaced (`sites.Skip`), a fit that did not converge
(`forms.Outcome`), a budget that no plan meets (`search` returns the empty plan), two
models that differ (`verify.Verdict`).

A message says what failed, where (file or node), and what to try. An option in it stands as
`<<max_drop>>`, or with its value as `<<max_drop=0.7>>`: `str(error)` shows it as the keyword that
it is in Python; `cli` shows it as a flag, prints the message after "error: " and exits with
`exit_code`. Nothing else in the package exits or prints.
"""

import re

# An option in a text, and its value; in Markdown the brackets are escaped.
OPTION = re.compile(r"\\?<\\?<(\w+)(?:=(.*?))?\\?>\\?>", re.DOTALL)

# What reading a document that somebody else may have changed can raise: fields that are missing,
# too few, of another type or too large, and lists in lists without end.
MALFORMED = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def as_keywords(text: str) -> str:
    """A text whose options stand as keywords of Python: `max_drop`, or `max_drop=0.7`."""
    return OPTION.sub(lambda m: m[1] if m[2] is None else f"{m[1]}={m[2]}", text)


class OnnxcpError(Exception):
    """Any error that a user can act on; `str` shows options as keywords of Python."""

    exit_code = 2

    @property
    def text(self) -> str:
        """The message with its options marked, to be part of another message."""
        return super().__str__()

    def __str__(self) -> str:
        return as_keywords(self.text)


class ModelError(OnnxcpError):
    """The file is not a model that can be read, checked or run."""


class BaselineError(OnnxcpError):
    """The original model is at chance, or gets inputs that it does not expect."""


class DataError(OnnxcpError):
    """Samples cannot be read, or do not fit the model."""


class UsageError(OnnxcpError):
    """An option is invalid, contradicts another, or names nothing."""


class OutputError(OnnxcpError):
    """A file must not or cannot be written."""


class PlanError(OnnxcpError):
    """A plan is invalid, or names a site, form or rank that the model does not have."""


class TableError(OnnxcpError):
    """A latency table is invalid, damaged, or of another model."""


class WorkError(OnnxcpError):
    """A work folder belongs to another run."""


class ProviderError(OnnxcpError):
    """An execution provider cannot be used on this machine."""

    exit_code = 3


class MissingPackage(ProviderError):
    """An optional package is not installed; the message names the command to install it."""


class TooBusy(OnnxcpError):
    """Other work on the machine makes it impossible to measure a speed."""

    exit_code = 1


class ClusterError(OnnxcpError):
    """A Dask cluster is unreachable, runs other versions, or was lost."""

    exit_code = 3


class UnsupportedError(OnnxcpError):
    """PyTorch cannot compute some nodes, so that the model cannot be trained."""

    exit_code = 3


class SurgeryError(OnnxcpError):
    """The rewritten model does not compute what its chains stand for: a bug of onnxcp."""

    exit_code = 70


class ParityError(OnnxcpError):
    """A model in PyTorch does not compute what ONNX Runtime does: a bug of onnxcp."""

    exit_code = 70
