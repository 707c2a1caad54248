"""Chains of a caller's own put into a model, as `optimize` puts its own."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxcp import __version__
from onnxcp.api.decompose import Decomposition
from onnxcp.api.models import ModelLike
from onnxcp.api.staging import staging
from onnxcp.chain import Chain, Stage
from onnxcp.errors import DataError, PlanError, UsageError
from onnxcp.forms import FORMS, grouped
from onnxcp.graph import io, provenance
from onnxcp.graph.input_specs import known_shapes
from onnxcp.graph.sites import Site, Skip
from onnxcp.graph.splice import rewrite
from onnxcp.plan import Choice, Plan
from onnxcp.runtime.survey import inferred


def replace(
    model: ModelLike, stages: Mapping[str, Decomposition | Sequence[Stage]]
) -> onnx.ModelProto:
    """The model with chains in place of some nodes; nothing else of it changes, and the model
    that is given stays as it is.

    Args:
        model: a path, an onnx.ModelProto or an onnx_graphsurgeon.Graph.
        stages: by the name of the node, as `onnxcp.inspect` lists them, what `onnxcp.decompose`
            made of its kernel: the decomposition, which takes stride and padding of the node, or
            its stages, which must slide as the node does. Their weights may have been changed.
            They are stored in the model's own type. A stage without a bias leaves the node its
            own.

    `onnxcp.verify(model, replaced)` checks that the result is the original but for the chains.

    Raises:
        DataError: weights that are NaN or infinite.
        ModelError: an unreadable model.
        PlanError: the model has no such node, or it is one that cannot be replaced.
        UsageError: stages that do not fit the node.
    """
    with staging() as staged:
        loaded = io.load(staged.model(model))
        sites, skips = inferred(loaded, known_shapes(loaded.inputs))
        by_name = {site.name: site for site in sites}
        chosen = {name: _site(name, by_name, skips) for name in stages}
        fitted = {name: _fitted(chosen[name], given) for name, given in stages.items()}
        chains = {name: chain for name, (_, chain) in fitted.items()}
        plan = Plan({name: choice for name, (choice, _) in fitted.items()})
        noted = _metadata(loaded, chosen, plan, chains)
        external = loaded.external
        made = rewrite(loaded.proto, chains, sites, metadata=noted, external=external)
        return made.proto


def _metadata(
    model: io.Model, sites: Mapping[str, Site], plan: Plan, chains: Mapping[str, Chain]
) -> dict[str, str]:
    """What the model says of its chains, by which `verify` checks them."""
    records = {
        name: provenance.record(choice, chains[name], sites[name].kernel)
        for name, choice in plan.choices.items()
    }
    return {
        "onnxcp.version": __version__,
        "onnxcp.plan_sha256": plan.sha256,
        **provenance.entries(model.sha256, provenance.read(model.proto), records),
    }


def _site(name: str, sites: Mapping[str, Site], skips: Sequence[Skip]) -> Site:
    if name in sites:
        return sites[name]
    reason = next((skip.reason for skip in skips if skip.layer.name == name), None)
    if reason is not None:
        raise PlanError(f"{name}: cannot be replaced: {reason}")
    near = difflib.get_close_matches(name, sites, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "onnxcp.inspect(model) lists them"
    raise PlanError(f"{name!r}: no such layer in this model; {hint}")


def _fitted(site: Site, given: Decomposition | Sequence[Stage]) -> tuple[Choice, Chain]:
    """The choice that a chain is, and the chain as it is to be written."""
    if isinstance(given, Decomposition):
        choice, chain = Choice(given.form, given.rank), given.stages_at(site)
    else:
        chain = tuple(given)
        choice = _choice(site, chain)
    _refuse_infinite(site, chain)
    return choice, chain


def _choice(site: Site, chain: Chain) -> Choice:
    """The form and the rank that stages are of, by their shapes.

    Raises:
        UsageError: they are of none, or slide otherwise than the node.
    """
    if not chain or not all(isinstance(stage, Stage) for stage in chain):
        raise UsageError(f"{site.name}: give a decomposition, or the stages of one")
    rank = chain[-1].weight.shape[1] * chain[-1].group
    for form in FORMS:
        drawn = _drawn(site, form, rank)
        if [_outline(stage) for stage in chain] == [_outline(stage) for stage in drawn]:
            _refuse_sliding(site, chain, drawn)
            return Choice(form, rank)
    size = "×".join(map(str, site.shape))
    raise UsageError(
        f"{site.name}: its stages make no chain of any form for a {size} kernel in {site.group} "
        "groups; give what onnxcp.decompose made of this kernel"
    )


def _drawn(site: Site, form: str, rank: int) -> Chain:
    """A chain of a form for the node, with random weights; empty where there is none."""
    most = grouped.largest_rank(FORMS[form], site.shape, site.group)
    if FORMS[form].refuses(site.part) is not None or rank % site.group or not 0 < rank <= most:
        return ()
    rng = np.random.default_rng(0)
    return grouped.drawn(FORMS[form], site.shape, site.group, rank, site.geometry, rng)


def _outline(stage: Stage) -> tuple[str, tuple[int, ...], int]:
    return stage.role, stage.weight.shape, stage.group


def _refuse_sliding(site: Site, chain: Chain, wanted: Chain) -> None:
    for stage, other in zip(chain, wanted, strict=True):
        for name in ("strides", "pads", "dilations"):
            is_given, needed = getattr(stage.geometry, name), getattr(other.geometry, name)
            if is_given != needed:
                raise UsageError(
                    f"{site.name}: stage {stage.role!r} has {name} {is_given}, the node needs "
                    f"{needed}; give them to onnxcp.decompose, or pass the decomposition itself"
                )


def _refuse_infinite(site: Site, chain: Chain) -> None:
    for stage in chain:
        numbers = [values for values in (stage.weight, stage.bias) if values is not None]
        with np.errstate(over="ignore"):
            stored = [values.astype(site.kernel.dtype) for values in numbers]
        if not all(np.isfinite(values).all() for values in stored):
            raise DataError(
                f"{site.name}: stage {stage.role!r} holds NaN or infinity in {site.kernel.dtype}"
            )
