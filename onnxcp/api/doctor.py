"""`onnxcp.doctor`: what this installation can do, and how to mend what it cannot."""

from dataclasses import dataclass, fields

from onnxcp.api.keywords import single, verb
from onnxcp.api.shown import Shown
from onnxcp.api.types import Names
from onnxcp.errors import UsageError, as_keywords
from onnxcp.report import Page
from onnxcp.report.doctor import as_text, page
from onnxcp.runtime.diagnosis import Findings, examine


@dataclass(frozen=True, slots=True)
class DoctorResult(Shown, Findings):
    """Versions, CPU and GPUs, and whether every provider runs a Conv; `problems` say what to
    mend."""

    @property
    def ok(self) -> bool:
        """Whether all that was asked for works."""
        return not self.exit_code

    def to_text(self, width: int = 80) -> str:
        """What the command prints."""
        return as_keywords(as_text(self, width))

    def _page(self) -> Page:
        return page(self)


@verb()
def doctor(*, provider: Names = (), timeout: float = 60.0) -> DoctorResult:
    """Look at versions, CPU and GPUs, and prove every provider by a Conv that runs on it.

    Args:
        provider: the names of those to prove; by default all that ONNX Runtime offers.
        timeout: the longest that a proof may take, in seconds.

    Raises:
        TypeError: an unknown keyword, with the nearest that there is.
        UsageError: an unknown provider, or less than a second for a proof.
    """
    names = [provider] if isinstance(provider, str) else list(provider)
    seconds = single("timeout", float, timeout)
    if seconds is None or seconds < 1:
        raise UsageError(f"<<timeout={timeout}>>: must be at least 1")
    found = examine(names, seconds)
    return DoctorResult(**{f.name: getattr(found, f.name) for f in fields(found)})
