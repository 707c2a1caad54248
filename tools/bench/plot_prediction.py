"""Predicted against measured drop of ten plans, as JSON and as a picture.

    python tools/bench/plot_prediction.py resnet20 --picture models/predicted.svg

The plans lie on the knapsack's frontier from gentle to harsh. Predicted drops follow from the
predicted change of the output by the curve through every other plan as judged on the samples
of the search; measured ones are of all ten, on the samples held out.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from networks import DATA, MODELS, sources

from onnxcp.latency.candidates import steps
from onnxcp.latency.tabulate import contexts
from onnxcp.measure.compare import time_models
from onnxcp.measure.evaluator import Referee
from onnxcp.measure.timing import speedup
from onnxcp.optimization.calibration import learn_inputs
from onnxcp.optimization.menu import make_menu
from onnxcp.optimization.open_run import open_run
from onnxcp.optimization.rounds import effort_for
from onnxcp.optimization.run import Run
from onnxcp.optimization.run_table import latency_table
from onnxcp.optimization.scores import Court
from onnxcp.optimization.settings import Asked, Settings
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.target import TargetOptions
from onnxcp.progress import silent
from onnxcp.search.frontier import frontier
from onnxcp.search.loss_curve import Point, fit

CHANGES = np.geomspace(0.004, 0.25, 10)  # predicted squared changes of the output
SIDE, MARGIN, LOW, HIGH = 360, 56, 0.0005, 0.2


@dataclass(frozen=True)
class Row:
    """One plan: drops in shares of the samples, times in milliseconds of the whole model."""

    change_predicted: float
    change_seen: float
    drop_searched: float
    drop_predicted: float
    drop_measured: float
    drop_low: float
    drop_high: float
    ms_predicted: float
    ms_measured: float


def rows(job: Run) -> list[Row]:
    """Ten plans, predicted and measured."""
    settings = job.settings
    referee = Referee(job.judged_runner(job.model.path), job.inputs, settings.limits)
    found = contexts(job.model, job.chosen, job.inputs)
    table = latency_table(job, found)
    times = table.of(found, settings.forms, "table")
    learn_inputs(job, [name for name, row in times.items() if steps(row)])
    court = Court(job, referee)
    menu = make_menu(job, times, table, court)
    front, effort = frontier(menu), effort_for(menu)
    places = [front.position(change) for change in CHANGES]
    plans = [front.plan(place) for place in places]
    scores = [court.judge(plan, effort) for plan in plans]
    points = [
        Point(float(front.loss[place]), score.loss, score.spread)
        for place, score in zip(places, scores, strict=True)
    ]
    curve = fit(points[::2], 0.01)
    made = []
    for plan, point, score in zip(plans, points, scores, strict=True):
        path = job.builder.build(plan, effort)
        seen = referee.judge(job.judged_runner(path))
        assert seen.drop_ci is not None
        made.append(
            Row(
                change_predicted=point.predicted,
                change_seen=score.change,
                drop_searched=score.loss,
                drop_predicted=curve.scale * point.predicted**curve.exponent,
                drop_measured=seen.drop,
                drop_low=seen.drop_ci[0],
                drop_high=seen.drop_ci[1],
                ms_predicted=1e3 * menu.seconds(plan),
                ms_measured=1e3 * table.total / faster(job, path),
            )
        )
    return made


def faster(job: Run, path: Path) -> float:
    """By how much a model is faster than the original; taken in turns."""
    given = ((job.model.path, path), job.inputs.timed_feeds, job.settings.target)
    return speedup(*time_models(*given, turns=1000, seconds=4)).ratio


def picture(name: str, found: list[Row]) -> str:
    """Measured against predicted drop, both logarithmic, with the paired 95 % intervals."""

    def at(value: float) -> float:
        share = np.log(np.clip(value, LOW, HIGH) / LOW) / np.log(HIGH / LOW)
        return float(share * (SIDE - 2 * MARGIN))

    def point(x: float, y: float) -> tuple[float, float]:
        return MARGIN + at(x), SIDE - MARGIN - at(y)

    (left, bottom), (right, top) = point(LOW, LOW), point(HIGH, HIGH)
    parts = [
        f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{top}" stroke="#999" '
        'stroke-dasharray="4 3"/>',
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" '
        'fill="none" stroke="#666"/>',
    ]
    for tick in (0.001, 0.01, 0.1):
        x, y = point(tick, tick)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}">{tick:.1%}</text>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.1%}</text>')
    for row in found:
        x, y = point(row.drop_predicted, row.drop_measured)
        high, low = (point(LOW, v)[1] for v in (row.drop_high, row.drop_low))
        parts.append(
            f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="#3572b0"/>'
        )
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#3572b0"/>')
    middle = SIDE / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{SIDE}" '
        'font-family="sans-serif" font-size="12" text-anchor="middle">'
        f'<rect width="{SIDE}" height="{SIDE}" fill="white"/>'
        f'<text x="{middle}" y="28" font-size="14">{name}: drop of ten plans</text>'
        f'<text x="{middle}" y="{SIDE - 14}">predicted</text>'
        f'<text x="14" y="{middle}" transform="rotate(-90 14 {middle})">measured</text>'
        f"{''.join(parts)}</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--picture", type=Path, help="an SVG to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = sources(options.model, options.data, folder)
        named = dict(zip(given[::2], given[1::2], strict=True))
        asked = Asked(
            data=DataOptions(
                data=(named["--data"],),
                calibration=(named["--calibration"],),
                preprocess=named.get("--preprocess", "none"),
            ),
            budget=BudgetOptions(metric=named.get("--metric")),
            target=TargetOptions(threads=1),
            fit=FitOptions(jobs=options.jobs, no_cache=True),
        )
        settings = Settings.of(options.data / MODELS[options.model], folder / "out.onnx", asked)
        with open_run(settings, silent) as job:
            found = rows(job)
    if options.picture is not None:
        options.picture.write_text(picture(options.model, found), encoding="utf-8")
    print(json.dumps([asdict(row) for row in found], indent=2))


if __name__ == "__main__":
    main()
