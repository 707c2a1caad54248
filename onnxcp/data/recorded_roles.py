"""The sample roles of the run that wrote a model, recorded in the model and its plan file.

A command that evaluates the model again uses the same evaluation set, so that results agree.
"""

import json
from collections.abc import Mapping
from typing import Any

from onnxcp.data.split import SampleRoles, from_record
from onnxcp.errors import PlanError
from onnxcp.graph import provenance
from onnxcp.graph.io import Model
from onnxcp.plan import plan_file

SAMPLES = "onnxcp.sample_roles"  # metadata key


def entry(roles: SampleRoles | None) -> dict[str, str]:
    """The metadata entry that records the roles in a model; empty without samples."""
    return {} if roles is None else {SAMPLES: json.dumps(roles.record())}


def roles_of(candidate: Model, source_sha256: str) -> SampleRoles | None:
    """The roles that samples had when `candidate` was made from a source.

    None if they are not recorded, or if the candidate was made from another source.
    """
    recorded = next((p.value for p in candidate.proto.metadata_props if p.key == SAMPLES), None)
    if recorded is not None and source_sha256 in provenance.read(candidate.proto).sources:
        return _read(_parsed(recorded))
    plan = plan_file(candidate.path)
    if not plan.is_file():
        return None
    document = _parsed(plan.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(document, Mapping) or document.get("source_sha256") != source_sha256:
        return None
    return _read(document.get("samples"))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read(recorded: Any) -> SampleRoles | None:
    try:
        return from_record(recorded) if isinstance(recorded, Mapping) else None
    except PlanError:
        return None
