"""What plans of one run are judged by: what was judged once is known, also from earlier runs.

Scores, and changes seen in probes, are noted in the store of fits under the hash of all they
depend on: the model, the recipe of its fits, the samples, the runtime.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path

from onnxcp.data.samples import digest
from onnxcp.forms import Effort
from onnxcp.latency.table import MATTERS
from onnxcp.measure.by_sample import Outputs
from onnxcp.measure.evaluator import PROBED, Referee
from onnxcp.measure.time_budget import now
from onnxcp.optimization.run import Run
from onnxcp.plan import Budget, Menu, Plan, Score
from onnxcp.quantization.precision import FLOAT32
from onnxcp.quantization.scheme import fastest
from onnxcp.runtime.environment import environment
from onnxcp.storage import cache, keys

CODE = (
    "chain",
    "data",
    "fitting",
    "forms",
    "graph",
    "measure",
    "optimization",
    "plan",
    "quantization",
    "runtime",
)  # of a judgement


class TimeIsUp(Exception):
    """A search ran into the end of `time_budget`; the court knows the best plan till then."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One plan that a search asked for."""

    plan: Plan
    score: Score


@dataclass(slots=True, eq=False)
class Court:
    """Judges plans as they are deployed; `trail` holds what it was asked, in order and each
    plan once.

    `deadline` is on the clock of `time_budget`. One plan is always judged.
    """

    run: Run
    referee: Referee
    deadline: float = math.inf
    trail: dict[tuple[str, str], Judged] = field(default_factory=dict)
    fresh: int = 0  # judgements not known from an earlier run
    took: float = 0.0  # seconds of the last judgement
    sample: float = 0.0  # seconds that a sample takes, as the original told
    probed: int = PROBED  # samples that changes are seen on
    _probe: Callable[[Outputs], float] | None = None
    _identity: dict[str, object] | None = None

    def refuse_late(self) -> None:
        """Raises TimeIsUp where another judgement would end after the deadline."""
        if now() + self.took > self.deadline:
            raise TimeIsUp

    def judge(self, plan: Plan, effort: Effort) -> Score:
        """What a plan loses with fits of an effort, on the samples of the search.

        Raises:
            TimeIsUp: the deadline would have passed.
        """
        key = (plan.sha256, repr(effort))
        if key not in self.trail:
            if self.trail:
                self.refuse_late()
            begun = now()
            self.run.progress("judge plans", len(self.trail), len(self.trail) + 1)
            measured = self._noted("score", plan, effort, self._score, deployed=True)
            self.trail[key] = Judged(plan, Score(*measured))
            self.took = now() - begun
        return self.trail[key].score

    def of_model(self, path: Path) -> Score:
        """What a float model that is there loses as it is deployed, on the samples of the
        search."""
        return self.referee.score(self.run.judged(self.run.builder.deployed(path)))

    def change(self, plan: Plan, effort: Effort) -> float:
        """The squared relative change of the output under a plan, in float, on a few samples."""
        what = "change" if self.probed == PROBED else f"change of {self.probed}"
        return float(self._noted(what, plan, effort, self._probed)[0])

    def _score(self, runner: Outputs) -> tuple[float, ...]:
        self.fresh += 1
        return astuple(self.referee.score(runner))

    def _probed(self, runner: Outputs) -> tuple[float, ...]:
        if self._probe is None:
            self._probe = self.referee.probe(self.probed)
        return (self._probe(runner),)

    def _noted(
        self,
        what: str,
        plan: Plan,
        effort: Effort,
        measure: Callable[[Outputs], tuple[float, ...]],
        *,
        deployed: bool = False,
    ) -> tuple[float, ...]:
        folder = self.run.kept_in
        precision = self.run.settings.precision if deployed else FLOAT32
        about = {
            "what": what,
            "plan": plan.sha256,
            "fits": "drafts" if self.run.fits.drafts else effort,
            "precision": [precision, "" if precision == FLOAT32 else fastest()],
        }
        key = keys.key("judgement", CODE, {**about, **self._conditions()})
        note = None if folder is None else cache.load_note(folder, key)
        if note is not None:
            return tuple(note)
        is_wanted = self.run.builder.built(plan, effort).exists()  # by others
        path = self.run.builder.build(plan, effort)
        found = measure(self.run.judged(self.run.builder.deployed(path) if deployed else path))
        if not is_wanted:
            shutil.rmtree(path.parent)  # a search makes many, and a model may be large
        if folder is not None:
            cache.save_note(folder, key, found)
        return found

    def _conditions(self) -> dict[str, object]:
        """What every judgement depends on."""
        if self._identity is None:
            inputs = self.run.inputs
            samples = inputs.search_samples or inputs.synthetic
            target = self.run.settings.target
            here = environment(target)
            self._identity = {
                "model": self.run.model.sha256,
                "recipe": self.run.recipe,
                "samples": digest(samples, inputs.batching.size),
                "referee": self.referee.identity,
                "target": [target.name, target.settings],
                "environment": [here.get(name) for name in MATTERS],
            }
        return self._identity


def best(court: Court, menu: Menu, budget: Budget) -> Plan:
    """Of the plans judged so far the one that serves a budget best; the empty one if none
    does."""
    judged = [j for j in court.trail.values() if j.plan.choices]
    if budget.seconds is not None:
        good = [j for j in judged if menu.seconds(j.plan) <= budget.seconds]
        return min(good, key=lambda j: j.score.loss, default=Judged(Plan(), Score(0.0))).plan
    plans = [j.plan for j in judged if j.score.within(budget)]
    return min(plans, key=menu.seconds, default=Plan())
