"""The forms and ranks that a layer can have, and reasons why it cannot have others."""

from collections.abc import Mapping

import numpy as np

from onnxcp.errors import PlanError
from onnxcp.forms import FORMS, grouped
from onnxcp.graph.float_parts import possible
from onnxcp.graph.sites import Site
from onnxcp.plan import Choice, round_up


def check(sites: Mapping[str, Site], name: str, choice: Choice) -> None:
    """Raises PlanError, with the valid choices, if a choice is invalid for a site."""
    if name not in sites:
        raise PlanError(
            f"the plan names {name!r}, which is no site of this model; `onnxcp inspect` lists them"
        )
    if choice.form not in FORMS:
        raise PlanError(f"{name}: unknown form {choice.form!r}; choose one of {', '.join(FORMS)}")
    site = sites[name]
    reason = FORMS[choice.form].refuses(site.part)
    if reason is not None:
        raise PlanError(f"{name}: {choice.form}: {reason}")
    outputs, most = site.shape[0], largest_rank(site, choice.form)
    if choice.rank % site.group:
        raise PlanError(
            f"{name}: rank {choice.rank} is no multiple of its {site.group} groups; "
            f"try <<rank='{name}={round_up(choice.rank, site.group)}'>>"
        )
    if not 1 <= choice.rank <= most:
        size = "×".join(map(str, site.shape))
        raise PlanError(
            f"{name}: rank {choice.rank} is not in 1..{most}, all that a {size} kernel can use; "
            f"try <<rank='{name}={min(most, outputs)}'>>"
        )
    if choice.floats and choice.floats not in (kinds := _may_stay_in_float(site, choice.form)):
        raise PlanError(
            f"{name}: a {choice.form} chain has no {choice.floats!r} to leave in float; the plan "
            f"may say {' or '.join(kinds)}"
        )


def _may_stay_in_float(site: Site, form: str) -> tuple[str, ...]:
    """The parts of a site's chain in this form that an int8 model can compute in float."""
    rng, rank = np.random.default_rng(0), site.group
    chain = grouped.drawn(FORMS[form], site.shape, site.group, rank, site.geometry, rng)
    return possible([stage.role for stage in chain])


def largest_rank(site: Site, form: str) -> int:
    """The rank at which a form represents a site's kernel exactly; larger ranks are useless."""
    return grouped.largest_rank(FORMS[form], site.shape, site.group)
