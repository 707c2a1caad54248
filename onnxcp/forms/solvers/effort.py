"""How hard a fit tries, and where."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a fit tries: sweeps at most, and the progress below which it has converged."""

    sweeps: int = 500  # in single precision
    finish: int = 300  # in double precision, from there
    corrections: int = 200  # 0: none, for a draft whose error alone matters
    polish: int = 200  # steps under the full norm of real inputs
    settled: float = 5e-4  # relative gain of such a step below which they have converged
    tolerance: float = 1e-3  # relative fall of the objective over `als.WINDOW` sweeps
    slack: float = 0.01  # error given up for less sensitivity, relative to the error reached
    floor: float = 1e-3  # error below which calm factors are worth more than exact ones
    device: str = "cpu"  # where large products run: a row of `device.DEVICES`


DRAFT = Effort(sweeps=60, finish=0, corrections=0, polish=20)
"""Enough to compare ranks by: mostly within a tenth of the converged error."""
