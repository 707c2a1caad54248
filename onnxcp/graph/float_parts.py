"""The part of a chain that an int8 model leaves in float: none, its depthwise windows, or all.

If int8 kernels of depthwise convolutions are slow, as on some CPUs, leaving parts in float can be
faster.
"""

from collections.abc import Collection

from onnxcp.graph.chain_names import glob

WINDOWS, CHAIN = KINDS = ("windows", "chain")
DEPTHWISE = {"window", "vertical", "horizontal", "deep"}  # roles


def possible(roles: Collection[str]) -> tuple[str, ...]:
    """The parts that can be left in float in a chain of stages with these roles."""
    return KINDS if DEPTHWISE & set(roles) else (CHAIN,)


def globs(site: str, floats: str, roles: Collection[str]) -> list[str]:
    """Of the nodes of a site's chain that are left in float."""
    if floats == CHAIN:
        return [glob(site, "*")]
    return [glob(site, role) for role in roles if role in DEPTHWISE] if floats == WINDOWS else []


def words(floats: str) -> str:
    """What is left in float, behind a chain's form and rank."""
    return {"": "", WINDOWS: ", windows in float", CHAIN: ", in float"}[floats]
