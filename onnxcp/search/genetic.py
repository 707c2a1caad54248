"""Evolution of whole plans: what sites lose together is judged, not added up.

Choose it where a night may be spent, sites are few, and predicted losses mislead: it takes
some hundred judgements, and with twenty sites these find no more than `uniform` does. With
`menu.journal` a search that was killed goes on where it ended, and several processes may
share one. Source: Song et al. 2021 (Journal of Software 32(11):3468), the genetic search;
Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE Transactions
on Evolutionary Computation 6(2), 2002, as Optuna has it.
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

TRIALS = 120  # of all processes that share a journal
POPULATION = 24
SEEDED = 20  # uniform plans that the first generation starts with
LEFT = 10  # seconds after which the lock of a killed process is broken
NAME, MENU, BUDGET = "onnxcp", "menu", "budget"  # a study, an attribute and a constraint of it

Genes = Mapping[str, int]  # by site, the position in its row
Rows = Mapping[str, tuple[Candidate | None, ...]]  # None leaves it; then from slow to fast


def genetic(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """The best of `TRIALS` plans, bred for little time and loss with the budget as a constraint.

    Raises:
        MissingPackage: Optuna is not installed.
        PlanError: the journal is of another menu or budget, or is no journal.
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
        known = next((t.values[1] for t in done if t.params == genes), None)
        loss = _loss(menu, budget, judge, plan) if known is None else known
        trial.set_constraint(BUDGET, _excess(budget, menu.seconds(plan), loss))
        study.tell(trial, (menu.seconds(plan), loss))
    first, second = (0, 1) if budget.seconds is None else (1, 0)
    within = [t for t in _done(study) if t.constraints[BUDGET] <= 0]
    best = min(within, key=lambda t: (t.values[first], t.values[second]), default=None)
    return Plan() if best is None else _plan(rows, best.params)


def _loss(menu: Menu, budget: Budget, judge: Judge, plan: Plan) -> float:
    """As judged; infinite without a judgement where the plan is too slow anyway."""
    if not plan.choices:
        return 0.0
    if budget.seconds is not None and menu.seconds(plan) > budget.seconds:
        return math.inf
    loss = judge(plan).loss
    return math.inf if math.isnan(loss) else loss


def _excess(budget: Budget, seconds: float, loss: float) -> float:
    """How far a plan is over the budget; not above 0 where it is within."""
    return loss - budget.limit if budget.seconds is None else seconds - budget.seconds


def _first(menu: Menu) -> Iterator[Plan]:
    """The model as it is and some uniform plans, from the gentlest to the fastest."""
    yield Plan()
    family = multiples(menu)
    last = len(family) - 1
    for position in sorted({last * k // (SEEDED - 1) for k in range(SEEDED)}):
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
    mine = _digest(menu, budget)
    if study.user_attrs.get(MENU, mine) != mine:
        raise PlanError(
            f"{menu.journal}: the journal of another search: sites, times or the budget differ; "
            "name another file, or delete this one"
        )
    study.set_user_attr(MENU, mine)
    seed = menu.seed + len(study.get_trials(deepcopy=False))  # processes are not to agree
    study.sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    return study


def _storage(journal: Path) -> "JournalStorage":
    from onnxcp.search.journal import open_storage

    try:
        return open_storage(journal, LEFT)
    except OSError as error:
        raise PlanError(f"{journal}: {error.strerror}; name a file that can be written") from error
    except (ValueError, LookupError, TypeError) as error:
        raise PlanError(f"{journal}: not the journal of a search; name another file") from error


def _digest(menu: Menu, budget: Budget) -> str:
    """What trials depend on, as one number: they can be compared where it is the same."""
    rows = [(name, [*row], menu.originals[name]) for name, row in menu.sites.items()]
    told = repr((rows, menu.total, budget.limit, budget.seconds))
    return hashlib.sha256(told.encode()).hexdigest()
