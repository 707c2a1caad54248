"""Ranks as they are given: by a plan that is replayed, or by rules."""

from onnxcp.fitting import choices
from onnxcp.forms import FORMS
from onnxcp.graph.sites import Site
from onnxcp.optimization.run import Run
from onnxcp.plan import Choice, forced_ranks, from_json
from onnxcp.quantization.precision import INT8


def forced_choices(run: Run) -> dict[str, list[Choice]]:
    """The choices that a plan or rules give to sites: several forms where none is named.

    Raises:
        PlanError: a rule or a plan names what the model does not have.
    """
    sites = {s.name: s for s in run.sites}
    if run.settings.plan.plan is not None:
        plan, _ = from_json(run.settings.plan.plan)
        is_int8 = run.settings.precision == INT8
        asked = {n: [c if is_int8 else c.plain] for n, c in plan.choices.items()}
    elif run.settings.plan.rank and run.sites:
        channels = {s.name: s.shape[0] for s in run.chosen}
        most = {s.name: max(_largest(run, s).values(), default=0) for s in run.chosen}
        groups = {s.name: s.group for s in run.chosen}
        block = run.settings.target.block
        ranks = forced_ranks(run.settings.plan.rank, channels, block, most, groups)
        asked = {name: _forced(run, sites[name], rank) for name, rank in ranks.items()}
    else:
        return {}
    for name, made in asked.items():
        for choice in made:
            choices.check(sites, name, choice)
    return {name: made for name, made in asked.items() if made}


def _forced(run: Run, site: Site, rank: int) -> list[Choice]:
    """A rank in every form that takes the kernel and has a use for the rank; where none
    has, in all that take it, to be refused with the reason."""
    largest = _largest(run, site)
    able = [form for form, most in largest.items() if rank <= most]
    return [Choice(form, rank) for form in able or largest]


def _largest(run: Run, site: Site) -> dict[str, int]:
    """The largest rank of every form that takes a site's kernel."""
    forms = [f for f in run.settings.forms if FORMS[f].refuses(site.part) is None]
    return {form: choices.largest_rank(site, form) for form in forms}
