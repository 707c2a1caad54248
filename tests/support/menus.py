"""Menus and judges of arithmetic, for tests of strategies."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from onnxcp.plan import Candidate, Choice, Menu, Original, Score

SPEED, ERRS = {"cp3": 1.0, "cp4": 0.9}, {"cp3": 1.0, "cp4": 2.0}
NOTHING = Menu({}, {}, 0.0, math.nan, math.nan, math.nan)


def error(errors, site, choice):
    return ERRS[choice.form] * errors[site] / choice.rank


def small_menu(errors, ranks=(16, 32, 48, 64)):
    """Every site takes 80 s; a candidate of rank R takes R s, and 0.9 R s if it errs twice."""
    sites = {
        site: [
            Candidate(site, Choice(form, rank), rank * speed, 10 * rank)
            for form, speed in SPEED.items()
            for rank in ranks
        ]
        for site in errors
    }
    return Menu(
        sites,
        {site: Original(80.0, 1000, 32) for site in errors},
        total=100.0 + 80.0 * len(errors),
        loss=lambda c: error(errors, c.site, c.choice) ** 2 / 5,
        spectra=lambda site: [],
    )


def adds_up(errors):
    """A judge that adds up the sites' errors."""
    return Judge(lambda plan: sum(error(errors, s, c) for s, c in plan.choices.items()))


@dataclass
class Judge:
    """Scores by a function, and remembers what it was asked. `noise` is a standard error."""

    loss: object
    noise: float = 0.0
    asked: dict = field(default_factory=dict)

    def __call__(self, plan):
        assert plan.choices, "the model as it is need not be judged"
        if plan.key not in self.asked:
            rng = np.random.default_rng(int(plan.sha256[:16], 16))
            loss = self.loss(plan) + (self.noise * rng.standard_normal() if self.noise else 0.0)
            self.asked[plan.key] = Score(loss, self.noise)
        return self.asked[plan.key]


def random_menu(seed, sites=4, ranks=6, tilt=0.0):
    """Savings are whole seconds and the largest add up to 100, so that a grid of 10,000 levels
    is exact. Shapes repeat: every second site is like the first."""
    rng = np.random.default_rng(seed)
    most = rng.multinomial(100 - 10 * sites, np.full(sites, 1 / sites)) + 10
    rows, originals, losses = {}, {}, {}
    for number in range(sites):
        site, channels = f"conv{number}", 64 * (1 + number % 2)
        saved = np.sort(rng.permutation(most[number] - 1)[: ranks - 1] + 1)[::-1]
        saved = [most[number], *saved]
        fall = np.exp(rng.normal(0, 1)) * 0.05 * np.exp(-0.6 * np.arange(ranks))
        rows[site] = [
            Candidate(
                site,
                Choice(str(rng.choice(["cp3", "cp4"])), 16 * (k + 1)),
                float(200 - saved[k]),
                10 * channels * (k + 1),
            )
            for k in range(ranks)
        ]
        originals[site] = Original(200.0, 10 * channels * (ranks + 1), channels)
        losses |= dict(zip(rows[site], fall * rng.uniform(0.7, 1.3, ranks), strict=True))
    return Menu(
        rows,
        originals,
        total=200.0 * sites,
        loss=losses.__getitem__,
        spectra=lambda site: [],
    )


def predicted(menu, plan):
    """The predicted loss of a plan."""
    return sum(
        next(menu.loss(c) for c in menu.sites[site] if c.choice == choice)
        for site, choice in plan.choices.items()
    )


def all_plans(menu):
    """(seconds, predicted loss) of every plan there is."""
    options = [
        [(0.0, 0.0), *((menu.originals[n].seconds - c.seconds, menu.loss(c)) for c in row)]
        for n, row in menu.sites.items()
    ]
    for taken in itertools.product(*options):
        yield menu.total - sum(s for s, _ in taken), sum(loss for _, loss in taken)
