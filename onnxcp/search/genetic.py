"""A genetic search over whole plans: the joint loss of all sites is measured, not predicted.

Choose it if predicted losses mislead, sites are few, and the search may take a night: it
evaluates about a hundred plans. With twenty sites it finds no more than `uniform` does. With
`menu.journal` a killed search continues where it ended, and several processes can share one.
Sources: Song et al. 2021 (Journal of Software 32(11):3468), the genetic search; Deb et al., A
fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE Transactions on Evolutionary
Computation 6(2), 2002, as implemented in Optuna.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcp.errors import MissingPackage, PlanError
from onnxcp.plan import Budget, Candidate, Judge, Menu, Plan
from onnxcp.search.plan_family import plan_of
from onnxcp.search.uniform import multiples

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

TRIALS = 120  # in all, of the processes that share a journal
POPULATION = 24
UNIFORM_PLANS = 20  # in the first generation
LOCK_SECONDS = 10  # after which the lock of a killed process is broken
NAME, MENU, BUDGET = "onnxcp", "menu", "budget"  # the study, its attribute and its constraint

Genes = Mapping[str, int]  # by site: the position in its row
Rows = Mapping[str, tuple[Candidate | None, ...]]  # by site: None (unchanged), then slow to fast


def genetic(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """The best of `TRIALS` plans, by time and loss, with the budget as a constraint.

    Raises:
        MissingPackage: Optuna is not installed.
        PlanError: the journal belongs to another menu or budget, or is not a journal.
    """
    if not any(menu.sites.values()):
        return Plan()
    rows = {n: (None, *sorted(row, key=lambda c: -c.seconds)) for n, row in menu.sites.items()}
    study = _study(menu, budget)
    for plan in _first(menu):
        study.enqueue_trial(_genes(rows, plan), skip_if_exists=True)
    while len(done := _done(study)) < TRIALS:
        trial = study.ask()
        genes = {name: trial.suggest_int(name, 0, len(row) - 1) for name, row in rows.items()}
        plan = _plan(rows, genes)
        measured = next((t.values[1] for t in done if t.params == genes), None)
        loss = _loss(menu, budget, judge, plan) if measured is None else measured
        trial.set_constraint(BUDGET, _excess(budget, menu.seconds(plan), loss))
        study.tell(trial, (menu.seconds(plan), loss))
    first, second = (0, 1) if budget.seconds is None else (1, 0)
    within = [t for t in _done(study) if t.constraints[BUDGET] <= 0]
    best = min(within, key=lambda t: (t.values[first], t.values[second]), default=None)
    return Plan() if best is None else _plan(rows, best.params)


def _loss(menu: Menu, budget: Budget, judge: Judge, plan: Plan) -> float:
    """The measured loss; infinite, without an evaluation, if the plan is too slow anyway."""
    if not plan.choices:
        return 0.0
    if budget.seconds is not None and menu.seconds(plan) > budget.seconds:
        return math.inf
    loss = judge(plan).loss
    return math.inf if math.isnan(loss) else loss


def _excess(budget: Budget, seconds: float, loss: float) -> float:
    """By how much a plan exceeds the budget, in loss or seconds; 0 or less if it does not."""
    return loss - budget.limit if budget.seconds is None else seconds - budget.seconds


def _first(menu: Menu) -> Iterator[Plan]:
    """The empty plan and some uniform plans, from the largest ranks to the smallest."""
    yield Plan()
    family = multiples(menu)
    last = len(family) - 1
    for position in sorted({last * k // (UNIFORM_PLANS - 1) for k in range(UNIFORM_PLANS)}):
        yield family[position]()


def _genes(rows: Rows, plan: Plan) -> dict[str, int]:
    chosen = {name: plan.choices.get(name) for name in rows}
    return {
        name: next(i for i, c in enumerate(row) if (c and c.choice) == chosen[name])
        for name, row in rows.items()
    }


def _plan(rows: Rows, genes: Genes) -> Plan:
    return plan_of(row[genes[name]] for name, row in rows.items())


def _done(study: "Study") -> list["FrozenTrial"]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.values]


def _study(menu: Menu, budget: Budget) -> "Study":
    """A new study, or the one in the menu's journal."""
    try:
        import optuna
    except ImportError as error:
        raise MissingPackage(
            "<<strategy=genetic>>: needs Optuna: pip install 'onnxcp[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=None if menu.journal is None else _storage(menu.journal),
        study_name=NAME,
        directions=["minimize", "minimize"],
        load_if_exists=True,
    )
    digest = _digest(menu, budget)
    if study.user_attrs.get(MENU, digest) != digest:
        raise PlanError(
            f"{menu.journal}: belongs to another search: sites, times or the budget differ; "
            "name another file, or delete this one"
        )
    study.set_user_attr(MENU, digest)
    seed = menu.seed + len(study.get_trials(deepcopy=False))  # another one for each process
    study.sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    return study


def _storage(journal: Path) -> "JournalStorage":
    from onnxcp.search.journal import open_storage

    try:
        return open_storage(journal, LOCK_SECONDS)
    except OSError as error:
        raise PlanError(f"{journal}: {error.strerror}; name a file you can write to") from error
    except (ValueError, LookupError, TypeError) as error:
        raise PlanError(f"{journal}: not the journal of a search; name another file") from error


def _digest(menu: Menu, budget: Budget) -> str:
    """The hash of all that trials depend on; trials with the same hash can be compared."""
    rows = [(name, [*row], menu.originals[name]) for name, row in menu.sites.items()]
    text = repr((rows, menu.total, budget.limit, budget.seconds))
    return hashlib.sha256(text.encode()).hexdigest()
