"""Latency tables: the times of a model's candidates on one target, as a portable file.

Times are in seconds. Contexts that take equally long share a row; a site finds its row by the key
of its context, so a table works for every model with these layers, whatever its weights. The sum
of a table is checked against whole models: the time that chains save there, over the sum of rows,
is the table's `scale`.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxcp.errors import MALFORMED, TableError
from onnxcp.graph.float_parts import KINDS
from onnxcp.latency.candidates import Latency
from onnxcp.latency.context import Context
from onnxcp.options.target import PRECISIONS
from onnxcp.quantization.precision import FLOAT32, INT8
from onnxcp.runtime.environment import environment
from onnxcp.runtime.providers import Target
from onnxcp.storage.plain_fields import from_plain

TABLE_VERSION = 1
DISAGREEMENT = 0.15  # of predicted and measured time of a whole model: above, it is said
PLAUSIBLE = 0.5, 2.0  # scales: outside, rows and whole models were not measured alike (a heuristic)
# what matters of the environment
MATTERS = ("machine", "cpu", "cpu_flags", "onnxruntime", "gpu", "driver", "cudnn")


@dataclass(frozen=True, slots=True)
class Check:
    """The seconds of a whole model under a plan: predicted from rows, and measured in turns."""

    predicted: float
    measured: float

    @property
    def miss(self) -> float:
        """The relative error of the prediction: predicted over measured, minus 1."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True)
class Table:
    """Times on one target.

    `total` is the time of the whole model without chains, `forms` are those whose candidates were
    timed. If `shortcuts` were convolutions in it, `original` is the time of the unchanged model.
    """

    model: str
    environment: Mapping[str, Any]
    provider: str
    options: Mapping[str, str]
    threads: int
    shapes: Mapping[str, tuple[int, ...]]
    forms: tuple[str, ...]
    total: float
    rows: Mapping[str, Latency]
    checks: tuple[Check, ...] = ()
    precision: str = FLOAT32  # that candidates and the whole model compute in
    original: float | None = None
    shortcuts: tuple[str, ...] = ()

    @property
    def before(self) -> float:
        """The seconds of the whole, unchanged model."""
        return self.total if self.original is None else self.original

    @property
    def scale(self) -> float:
        """The time that chains save in whole models, over that predicted by rows; 1 if
        implausible."""
        return self._share if self.is_reliable else 1.0

    @property
    def is_reliable(self) -> bool:
        """Whether the rows add up to whole models, up to a plausible scale."""
        low, high = PLAUSIBLE
        return low <= self._share <= high and all(check.predicted > 0 for check in self.checks)

    @property
    def _share(self) -> float:
        said = sum(self.total - check.predicted for check in self.checks)
        saved = sum(self.total - check.measured for check in self.checks)
        return saved / said if said > 0 else 1.0

    @property
    def disagrees(self) -> bool:
        return any(abs(check.miss) > DISAGREEMENT for check in self.checks)

    def scale_of(self, rows: Iterable[Latency]) -> float:
        """The scale for a model's layers.

        Limited so that the layers together take no more than the whole model; no plan is then
        predicted to take a negative time.
        """
        layers = sum(row.dense for row in rows)
        return min(self.scale, self.total / layers) if layers else self.scale

    @property
    def doubt(self) -> str | None:
        """A warning about predicted times; None if they add up."""
        if not self.is_reliable:
            return (
                "times of single layers do not add up to the whole model's here, so predicted "
                "times are rough; a speed-up of the whole model is measured, and not affected"
            )
        if not self.disagrees:
            return None
        return (
            "times of single layers miss the whole model's by more than "
            f"{DISAGREEMENT:.0%}: what they save is predicted to be {self.scale:.2f} of their sum; "
            "a speed-up of the whole model is measured, and not affected"
        )

    @property
    def is_busy(self) -> bool:
        """Whether some layers could not be measured because of other work."""
        return any(row.busy is not None for row in self.rows.values())

    @property
    def target(self) -> Target:
        return Target.recorded(self.provider, self.threads, self.options)

    def foreign(self) -> list[str]:
        """How this machine differs from the one that was measured; empty if it does not."""
        here = environment(self.target)
        return [
            f"{name} {_shown(self.environment.get(name))}, here {_shown(here.get(name))}"
            for name in MATTERS
            if self.environment.get(name) != here.get(name)
        ]

    def of(
        self, contexts: Iterable[Context], forms: Sequence[str], where: str
    ) -> dict[str, Latency]:
        """The times of a model's sites, by name, in some forms.

        Raises:
            TableError: the table lacks a site or a form.
        """
        missing = [form for form in forms if form not in self.forms]
        if missing:
            raise TableError(
                f"{where}: has no times of {', '.join(missing)}; "
                f"make it again with onnxcp profile <<form={missing[0]}>>"
            )
        found = {}
        for context in contexts:
            row = self.rows.get(context.key)
            if row is None:
                raise TableError(
                    f"{where}: is of another model or of other input shapes than these, it has no "
                    f"times of {context.site.name}; make it again with onnxcp profile"
                )
            tried = tuple(m for m in row.tried if m.choice.form in forms)
            found[context.site.name] = replace(row, tried=tried)
        return found


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def to_text(table: Table) -> str:
    """The file that `latency` reads."""
    return json.dumps(to_document(table), indent=1) + "\n"


def to_document(table: Table) -> dict[str, Any]:
    """A table as plain values."""
    rows = {key: _row(latency) for key, latency in table.rows.items()}
    return {"latency_version": TABLE_VERSION, **asdict(table), "rows": rows}


def _row(latency: Latency) -> dict[str, Any]:
    tried = [{**asdict(m), "choice": m.choice.row()} for m in latency.tried]
    return {**asdict(latency), "tried": tried}


def from_file(path: Path) -> Table:
    """The table in a file.

    Raises:
        TableError: the file is not a table, is damaged, or is of another version.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = document["latency_version"]
        if version != TABLE_VERSION:
            raise TableError(
                f"{path}: latency table of version {version}, not {TABLE_VERSION}; make it again "
                "with onnxcp profile"
            )
        return from_document(document)
    except OSError as error:
        raise TableError(
            f"{path}: {error.strerror}; give a file that onnxcp profile wrote"
        ) from error
    except MALFORMED as error:
        raise TableError(
            f"{path}: not a latency table, or a damaged one; make it again with onnxcp profile"
        ) from error


def from_document(document: Mapping[str, Any]) -> Table:
    """The table of plain values. Raises ValueError, KeyError or TypeError if they are invalid."""
    table: Table = from_plain(
        Table, {name: value for name, value in document.items() if name != "latency_version"}
    )
    rows = table.rows
    times = [table.total, table.before, *(row.dense for row in rows.values())]
    tried = [m for row in rows.values() for m in row.tried]
    times += [m.seconds for m in tried]
    if not all(time > 0 for time in times):
        raise ValueError("times must be positive")
    if not all(0 < m.against.low <= m.against.high and m.against.ratio > 0 for m in tried):
        raise ValueError("ratios of times are positive, and an interval has its lower end first")
    if not all(m.choice.rank > 0 for m in tried) or table.threads < 0:
        raise ValueError("ranks and threads are counts")
    if not all(check.measured > 0 for check in table.checks):
        raise ValueError("times must be positive")
    if not re.fullmatch("[a-z0-9]+(,[a-z0-9]+)*", table.provider):
        raise ValueError("a provider has a name")
    if table.precision not in PRECISIONS:
        raise ValueError("a precision is known")
    known = ("", *(KINDS if table.precision == INT8 else ()))
    if not all(m.choice.floats in known for m in tried):
        raise ValueError("what is left in float is known, and in int8 alone")
    return table
