"""How kernels are fitted, where, and what is kept of it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from onnxcp.errors import UsageError
from onnxcp.options.option import Option

DEVICES = ("cpu", "cuda", "torch")  # the last: torch on the CPU, for tests and comparison


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Fits and what they are calibrated by.

    Raises:
        UsageError: an unknown device, fewer than one job, or options that exclude each other.
    """

    PANEL: ClassVar[str | None] = "Fits"

    bias_correction: Annotated[
        bool, Option("Let biases compensate for the change of each layer's mean output.")
    ] = True
    sequential: Annotated[
        bool,
        Option(
            "Refit the plan's layers in order, each to the inputs that the chains before it give: "
            "more accurate, and two runs over the calibration data for every layer."
        ),
    ] = False
    calibration_memory: Annotated[
        float, Option("Memory for covariances, at most.", metavar="GB", min=0)
    ] = 2.0
    jobs: Annotated[
        int | None, Option("Number of fits at once; default: the usable cores.", metavar="N", min=1)
    ] = None
    cluster: Annotated[
        str | None,
        Option(
            "Fit and evaluate on the workers of a Dask scheduler, tcp://host:8786; as many fits "
            "at once as they have threads, so without <<jobs>>. Time is measured here.",
            metavar="ADDRESS",
        ),
    ] = None
    fit_device: Annotated[
        str,
        Option("Where fits run: cpu or cuda (torch).", metavar="NAME", choices=DEVICES[:2]),
    ] = "cpu"
    cache: Annotated[
        Path | None,
        Option(
            "Where fits are kept between runs; default: $ONNXCP_CACHE or ~/.cache/onnxcp.",
            metavar="DIR",
        ),
    ] = None
    no_cache: Annotated[bool, Option("Compute every fit anew.")] = False

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"<<jobs={self.jobs}>>: must be at least 1")
        if self.no_cache and self.cache is not None:
            raise UsageError(
                f"<<cache={self.cache}>> and <<no_cache>> exclude each other: give one"
            )
        if self.cluster is not None and self.jobs is not None:
            raise UsageError(
                f"<<jobs={self.jobs}>> and <<cluster={self.cluster}>> exclude each other: a "
                "cluster does as many fits at once as its workers have threads"
            )
        if self.fit_device not in DEVICES:
            raise UsageError(
                f"<<fit_device={self.fit_device}>>: unknown; choose one of {', '.join(DEVICES)}"
            )
        if self.cluster is not None and self.fit_device != "cpu":
            raise UsageError(
                f"<<fit_device={self.fit_device}>> and <<cluster>> exclude each other: the "
                "workers of a cluster fit on their processors"
            )

    @property
    def cache_folder(self) -> Path | None:
        """The folder of kept fits; None without one."""
        from onnxcp.storage.cache import default_folder  # here: names of options come first

        return None if self.no_cache else self.cache or default_folder(os.environ)

    @property
    def memory(self) -> int:
        """Bytes that covariances may take."""
        return int(self.calibration_memory * 2**30)
