"""Plans along time against accuracy, each with the model it makes.

Those of the knapsack's frontier that save equal steps of time are fitted in full, judged on the
samples held out, timed in turns with the original, and kept unless another one is both faster
and more accurate.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onnxcp.artifacts.publishing import publish
from onnxcp.artifacts.reservation import model_files
from onnxcp.measure.timing import speedup
from onnxcp.optimization.outcome import Outcome
from onnxcp.optimization.run import Run
from onnxcp.plan import Menu, Plan, plan_file, to_json
from onnxcp.results import ParetoRecord
from onnxcp.search.frontier import frontier

SHARES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)  # of all that can be saved
NAME = "pareto.json"


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A plan that was fitted, judged and timed."""

    outcome: Outcome
    record: ParetoRecord


def write_front(
    run: Run, menu: Menu, found: Outcome, measured: Callable[[Plan], Outcome], folder: Path
) -> tuple[ParetoRecord, ...]:
    """Models along the front, in `folder`; `measured` fits, judges and times a plan, as was
    done for `found`."""
    plans = [plan for plan in _plans(menu) if plan.sha256 != found.plan.sha256]
    outcomes = [found] if found.timings is not None else []
    for done, plan in enumerate(plans):
        run.progress("plans along the front", done, len(plans))
        outcomes.append(measured(plan))
    kept = undominated([_point(outcome) for outcome in outcomes if outcome.timings is not None])
    return _write(run, kept, folder)


def _plans(menu: Menu) -> list[Plan]:
    front = frontier(menu)
    most = float(front.saved[-1]) if len(front) else 0.0
    places = [int((front.saved < share * most).sum()) for share in SHARES]
    plans = [front.plan(place) for place in dict.fromkeys(p for p in places if p < len(front))]
    return [plan for plan in plans if plan.choices]


def _point(outcome: Outcome) -> Point:
    assert outcome.timings is not None and outcome.accuracy is not None
    ratio, accuracy = speedup(*outcome.timings), outcome.accuracy
    ms = 1e3 * outcome.timings[1].median
    return Point(outcome, ParetoRecord("", ratio.ratio, ms, accuracy.drop, accuracy.drop_ci))


def undominated(points: Sequence[Point]) -> list[Point]:
    """Slowest first; none of them loses as much as one that is faster."""
    kept = list[Point]()
    for point in sorted(points, key=lambda p: -p.record.speedup):
        if point.record.speedup > 1 and all(point.record.drop < k.record.drop for k in kept):
            kept.append(point)
    return kept[::-1]


def front_files(model: Path, folder: Path) -> list[Path]:
    """Every file that a front of a model may consist of."""
    models = [_model(model, number, folder) for number in range(1, len(SHARES) + 2)]
    return [folder / NAME, *(f for m in models for f in (*model_files(m), plan_file(m)))]


def _model(model: Path, number: int, folder: Path) -> Path:
    return folder / f"{model.stem}.{number}.onnx"


def _write(run: Run, points: Sequence[Point], folder: Path) -> tuple[ParetoRecord, ...]:
    """Write the models with their plans, and the front as a table for programs."""
    records, texts, models = [], dict[Path, str](), []
    for number, point in enumerate(points, 1):
        assert point.outcome.staged is not None
        path = _model(run.model.path, number, folder)
        texts[plan_file(path)] = _text(run, point.outcome.plan)
        models.append((point.outcome.staged, path))
        records.append(replace(point.record, path=str(path)))
    texts[folder / NAME] = json.dumps([asdict(r) for r in records], indent=1) + "\n"
    publish(texts, models, overwrite=run.settings.run.overwrite)
    return tuple(records)


def _text(run: Run, plan: Plan) -> str:
    return to_json(plan, run.model.sha256, run.recipe, run.sample_roles)
