"""Which samples judged a model when it was made: noted in it, and in the plan beside it.

Who judges it again takes the same samples, so that both say the same.
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
    """The metadata of a model that says which samples judged it; none without samples."""
    return {} if roles is None else {SAMPLES: json.dumps(roles.record())}


def roles_of(candidate: Model, source_sha256: str) -> SampleRoles | None:
    """The roles that samples had when a model was made of a source; None where that is not
    noted, or of another source."""
    noted = next((p.value for p in candidate.proto.metadata_props if p.key == SAMPLES), None)
    if noted is not None and source_sha256 in provenance.read(candidate.proto).sources:
        return _read(_parsed(noted))
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


def _read(noted: Any) -> SampleRoles | None:
    try:
        return from_record(noted) if isinstance(noted, Mapping) else None
    except PlanError:
        return None
