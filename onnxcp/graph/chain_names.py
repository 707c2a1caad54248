"""How the nodes of chains are named: `SITE/cp/ROLE`, after the layer and what a stage does.

Tensors of a stage begin with the name of its node.
"""

import re
from collections.abc import Iterable

BETWEEN = "/cp/"  # a layer's name and a stage's role


def prefix(site: str) -> str:
    """What the names of a site's nodes and tensors begin with."""
    return f"{site}{BETWEEN}"


def node_name(site: str, role: str) -> str:
    """The name of a stage's node."""
    return f"{prefix(site)}{role}"


def is_of(name: str, sites: Iterable[str]) -> bool:
    """Whether a node or tensor is named as one of a site's chain."""
    return name.startswith(tuple(map(prefix, sites)))


def site_of(name: str) -> str:
    """The layer that a node's chain replaces; empty for a node of no chain."""
    return name.rpartition(BETWEEN)[0]


def role_of(name: str) -> str:
    """What the stage of a chain's node does."""
    return name.rpartition("/")[2]


def glob(site: str, role: str) -> str:
    """A glob of a stage's node; the role may be a glob itself."""
    return re.sub(r"([*?[])", r"[\1]", site) + BETWEEN + role
