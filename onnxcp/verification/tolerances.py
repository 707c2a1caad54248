"""Tolerances as options give them, for all outputs or for one: `X` or `OUTPUT:X`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from onnxcp.errors import UsageError
from onnxcp.options.tolerance import STATS, ToleranceOptions
from onnxcp.verification.difference import Tolerance

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The requested tolerances by output; that of "" applies to outputs without their own."""

    rtol: Mapping[str, float] = field(default_factory=dict)
    atol: Mapping[str, float] = field(default_factory=dict)
    stat: Mapping[str, str] = field(default_factory=dict)

    def of(self, outputs: Sequence[str]) -> dict[str, Tolerance]:
        """The tolerance of every output that has one.

        Raises:
            UsageError: a named output does not exist, or a statistic has no limit.
        """
        for option, given in (
            ("rtol", self.rtol),
            ("atol", self.atol),
            ("check_error_stat", self.stat),
        ):
            for name, value in given.items():
                if name and name not in outputs:
                    raise UsageError(
                        f"<<{option}={name}:{value}>>: no such output; the model gives "
                        f"{', '.join(outputs)}"
                    )
        found = {name: made for name in outputs if (made := self._one(name)) is not None}
        for name, stat in self.stat.items():
            if stat != STATS[0] and name not in found and (name or not found):
                asked = f"{name}:{stat}" if name else stat
                raise UsageError(
                    f"<<check_error_stat={asked}>>: bounds nothing; give <<rtol>> or <<atol>>"
                )
        return found

    def _one(self, output: str) -> Tolerance | None:
        rtol, atol = _own(self.rtol, output), _own(self.atol, output)
        if rtol is None and atol is None:
            return None
        return Tolerance(rtol or 0.0, atol or 0.0, _own(self.stat, output) or STATS[0])


def _own(given: Mapping[str, Value], output: str) -> Value | None:
    return given.get(output, given.get(""))


def parse(asked: ToleranceOptions) -> Tolerances:
    """The tolerances of options; the later one counts for an output given twice.

    The name of an output may contain colons.

    Raises:
        UsageError: a number is not a tolerance, or a statistic is unknown.
    """
    stat = asked.check_error_stat
    stats = dict(_split(text) for text in stat)
    for text, name in zip(stat, (_split(t)[1] for t in stat), strict=True):
        if name not in STATS:
            raise UsageError(f"<<check_error_stat={text}>>: choose one of {', '.join(STATS)}")
    return Tolerances(_numbers("rtol", asked.rtol), _numbers("atol", asked.atol), stats)


def _split(text: str) -> tuple[str, str]:
    output, _, value = text.rpartition(":")
    return output, value


def _numbers(option: str, given: Sequence[str]) -> dict[str, float]:
    made = {}
    for text in given:
        output, value = _split(text)
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < math.inf:
            raise UsageError(
                f"<<{option}={text}>>: give a number from 0 up, as 1e-3, or as OUTPUT:1e-3 for one "
                "output"
            )
        made[output] = number
    return made
