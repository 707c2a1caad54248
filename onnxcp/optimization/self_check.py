"""Whether a model that a run made computes what its chains stand for, told from its file."""

from dataclasses import dataclass
from pathlib import Path

from onnxcp.errors import SurgeryError
from onnxcp.optimization.run import Run
from onnxcp.results import VerificationRecord
from onnxcp.verification.proof import prove_surgery


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A surgery that is right; `kernel_errors` say by site how far the kernel that its chain
    stands for is from the original's, ‖K − K̂‖ / ‖K‖."""

    verification: VerificationRecord
    kernel_errors: dict[str, float]


def checked(run: Run, path: Path, when: str = "") -> Checked:
    """Check a float model of the run's folder; `when` says in messages what was done to it last.

    Raises:
        SurgeryError: a chain does not compute what it stands for.
        ModelError: the original gives NaN or infinity, which nothing can be compared with.
    """
    surgery = prove_surgery(
        run.model,
        path,
        run.inputs,
        run.settings.target.unhurried,
        when=when,
        progress=run.progress,
        judged=run.outputs,
    )
    if surgery.relative_l2 is None or surgery.tolerance is None:
        raise SurgeryError(
            f"{run.model.path}: {when}no chain of the rewritten model was checked; nothing was "
            "written; this is a bug in onnxcp: please report it with the model"
        )
    errors = {site.name: site.kernel_error for site in surgery.sites}
    ran = surgery.relative_l2, surgery.tolerance, surgery.samples
    return Checked(VerificationRecord(True, *ran), errors)
