"""Everything that can go wrong, as one tree.

    OnnxcpError
    ├── ModelError           the file is not a model we can read, check or run
    ├── BaselineError        the original is at chance, or fed what it does not expect
    ├── DataError            samples that do not fit the model, or are no samples
    ├── UsageError           options that contradict each other or name nothing
    ├── OutputError          a file we may not or can not write
    ├── PlanError            a plan names a site, form or rank the model does not have
    ├── TableError           a latency table that is none, damaged, or of another model
    ├── WorkError            a work folder that belongs to another run
    ├── ProviderError        the execution provider is not usable on this machine
    │   └── MissingPackage   an optional package is not installed
    ├── TooBusy              other work on the machine leaves nothing to be told of speed
    ├── ClusterError         a Dask cluster is not there, runs other versions, or was lost
    ├── UnsupportedError     nodes that torch can not compute, so the model can not be trained
    ├── SurgeryError         the rewritten model does not compute what its chains stand for
    └── ParityError          a model in torch does not compute what ONNX Runtime does

Not errors but values: a Conv left alone (`sites.Skip`), a fit that did not converge
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
    exit_code = 2

    @property
    def text(self) -> str:
        """The message as it was written, for another text to take in."""
        return super().__str__()

    def __str__(self) -> str:
        return as_keywords(self.text)


class ModelError(OnnxcpError): ...


class BaselineError(OnnxcpError): ...


class DataError(OnnxcpError): ...


class UsageError(OnnxcpError): ...


class OutputError(OnnxcpError): ...


class PlanError(OnnxcpError): ...


class TableError(OnnxcpError): ...


class WorkError(OnnxcpError): ...


class ProviderError(OnnxcpError):
    exit_code = 3


class MissingPackage(ProviderError): ...


class TooBusy(OnnxcpError):
    exit_code = 1


class ClusterError(OnnxcpError):
    exit_code = 3


class UnsupportedError(OnnxcpError):
    exit_code = 3


class SurgeryError(OnnxcpError):
    exit_code = 70


class ParityError(OnnxcpError):
    exit_code = 70
