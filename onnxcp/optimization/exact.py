"""Exact passes of one model: those that make it measurably faster, proven to compute the same.

Passes act on one another: one may pay only behind another, or what it brings may be gone with a
third. So they are added one by one while the whole model becomes faster, in turns with what there
was before, and in the end each that was kept must still pay.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from onnxcp.data.roles import Inputs
from onnxcp.errors import ModelError, SurgeryError
from onnxcp.graph import io, shapes
from onnxcp.graph.pass_table import PASSES
from onnxcp.graph.passes import applied, in_order
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.timing import Speedup, Timing, speedup, take_turns
from onnxcp.progress import Progress, silent
from onnxcp.results import PassRecord
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.verification.exact import prove

TURNS, SECONDS = 300, 4.0  # of two models in turns, at most
WORTH = 1.02  # times as fast, that a pass could still make the model, to stay (a heuristic)
ROUNDS = 2  # a pass that did not pay is tried once more, behind those that did


@dataclass(frozen=True, slots=True, eq=False)
class Exact:
    """A model with the passes that were kept, in their order; `records` of all in question.
    `error` is the largest relative L2 change of any tensor, by `verification.exact`."""

    proto: onnx.ModelProto
    names: tuple[str, ...]
    records: tuple[PassRecord, ...]
    error: float = 0.0
    tolerance: float = 0.0


@dataclass(slots=True, eq=False)
class PassChoice:
    """The choice of passes for a model on a target, whose files go into a folder.

    `left_out` are passes that are not tried.
    """

    model: io.Model
    inputs: Inputs
    target: Target
    folder: Path
    left_out: Collection[str] = ()
    progress: Progress = silent
    _counted: dict[tuple[str, ...], dict[str, int]] = field(default_factory=dict)
    _runs: dict[tuple[str, ...], Callable[[], object]] = field(default_factory=dict)
    _shapes: Mapping[str, tuple[int, ...]] | None = None
    _records: dict[str, PassRecord] = field(default_factory=dict)

    def best(self) -> Exact:
        """The passes that pay, applied.

        Raises:
            TooBusy: too much other work runs on the machine to tell.
            OnnxcpError: a model does not run.
        """
        names: tuple[str, ...] = ()
        found = self.candidates()
        for _ in range(ROUNDS):
            before = names
            for name in found:
                if name not in names:
                    names = self._with(names, name, len(found))
            if names == before:
                break
        for name in names if len(names) > 1 else ():
            names = self._without(names, name)
        return self.of(names)

    def candidates(self) -> list[str]:
        """Passes that change the model, alone or behind others."""
        allowed = [name for name in PASSES if name not in self.left_out]
        alone = [name for name in allowed if self._counts((name,))]
        return list(in_order({*alone, *self._counts(tuple(allowed))}))

    def of(self, names: Sequence[str]) -> Exact:
        """The model with some passes, proven.

        Raises:
            SurgeryError: it does not compute what it did: a bug.
        """
        proto = self._applied(tuple(names))
        proof = prove(self.model.proto, proto, self.inputs.surgery_feeds, self.target)
        if proof.failures:
            raise SurgeryError(f"exact passes {', '.join(names)}: {proof.failures[0]}")
        records = tuple(self._records[name] for name in in_order(self._records))
        return Exact(proto, tuple(names), records, proof.largest, proof.tolerance)

    def _with(self, names: tuple[str, ...], name: str, total: int) -> tuple[str, ...]:
        """The passes with one more, if that pays."""
        self.progress("try exact passes", len(self._records), total)
        trial = in_order({*names, name})
        places = self._counts(trial).get(name, 0)
        if not places:
            return names
        refusal = self._refusal(trial)
        if refusal is not None:
            self._record(name, places, None, refusal)
            return names
        ratio = self._faster(names, trial)
        self._record(name, places, ratio, ratio.verdict())
        return trial if ratio.is_faster else names

    def _refusal(self, names: tuple[str, ...]) -> str | None:
        """Why the model with some passes is out of the question; None where it is not. An operator
        may have no kernel for the type of the model's tensors."""
        proto = self._applied(names)
        try:
            proof = prove(self.model.proto, proto, self.inputs.surgery_feeds, self.target)
            self._run(names)
        except ModelError as error:
            return f"does not run: {error.text}"
        return f"not proven: {proof.failures[0]}" if proof.failures else None

    def _without(self, names: tuple[str, ...], name: str) -> tuple[str, ...]:
        """The passes without one of them, unless it still pays."""
        rest = tuple(other for other in names if other != name)
        if not self._counts(rest) or set(self._counts(rest)) != set(rest):
            return names  # others build on it
        ratio = self._faster(rest, names)
        if ratio.ratio > 1 and ratio.high > WORTH:
            return names  # it paid when it was added, and nothing says that it does no more
        record = self._records[name]
        reason = f"{ratio.verdict()} beside {', '.join(rest)}"
        self._records[name] = replace(record, kept=False, reason=reason)
        return rest

    def _record(self, name: str, places: int, ratio: Speedup | None, reason: str) -> None:
        self._records[name] = PassRecord(
            name=name,
            words=PASSES[name].words,
            places=places,
            kept=ratio is not None and ratio.is_faster,
            reason=reason,
            speedup=None if ratio is None else ratio.ratio,
            speedup_ci=None if ratio is None else (ratio.low, ratio.high),
        )

    def _faster(self, before: tuple[str, ...], after: tuple[str, ...]) -> Speedup:
        return speedup(*self.timed(before, after))

    def timed(
        self,
        before: tuple[str, ...],
        after: tuple[str, ...],
        turns: int = TURNS,
        seconds: float = SECONDS,
    ) -> tuple[Timing, Timing]:
        """Times of the model with some passes and with others, in turns.

        Raises:
            TooBusy: other work runs in most of the turns.
        """
        self._runs = {n: run for n, run in self._runs.items() if n in (before, after)}
        runs = [self._run(before), self._run(after)]
        first, second = take_turns(runs, stopwatch(self.target), turns=turns, seconds=seconds)
        return first, second

    def _run(self, names: tuple[str, ...]) -> Callable[[], object]:
        if names not in self._runs:
            path = self.model.path
            if names:
                path = self.folder / "passes.onnx"
                io.save(self._applied(names), path, self.model.external)
            self._runs[names] = open_runner(path, self.target).bound(self.inputs.timed_feeds)
        return self._runs[names]

    def _counts(self, names: tuple[str, ...]) -> dict[str, int]:
        if names not in self._counted:
            self._applied(names)
        return self._counted[names]

    def _applied(self, names: tuple[str, ...]) -> onnx.ModelProto:
        """The model with some passes: made anew each time, as models may be large."""
        if self._shapes is None:
            self._shapes = shapes.infer(self.model.proto, self.inputs.shapes)
        proto, self._counted[names] = applied(self.model.proto, names, self._shapes)
        return proto
