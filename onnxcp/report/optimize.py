"""The report of `optimize` as text for a terminal of any width, and as a page."""

import textwrap
from collections.abc import Sequence

from onnxcp.escape import shown
from onnxcp.graph import float_parts
from onnxcp.report import format
from onnxcp.report.table import Page, Table, names, numbers, texts
from onnxcp.results import KEPT, Report, SiteRecord
from onnxcp.words import milliseconds

MIN_WIDTH = 60  # characters
LABEL_WIDTH = 14
COLUMNS = (
    names("layer"),
    texts("weight"),
    texts("decision"),
    *numbers("error", "sensitivity", "ms before", "ms after"),
    texts("reason"),
)


def page(report: Report) -> Page:
    """The run as a page: verdict, warnings, facts, and a row per layer."""
    return Page(
        report.verdict,
        report.document(),
        report.warnings,
        format.facts(report),
        [Table(COLUMNS, list(map(_row, report.sites)))],
        report.command,
    )


def _row(site: SiteRecord) -> tuple[str, ...]:
    before, after = site.sensitivity_before, site.sensitivity_after
    return (
        site.name,
        format.shape(site),
        format.with_floats(site),
        "" if site.error is None else f"{site.error:.3f}",
        "" if before is None or after is None else f"{before:.2g} → {after:.2g}",
        milliseconds(site.ms_before),
        milliseconds(site.ms_after),
        site.reason,
    )


def to_text(report: Report, width: int = 80) -> str:
    """The run as text: warnings, verdict, facts, and a line per replaced layer."""
    width, report = max(width, MIN_WIDTH), shown(report)
    warnings = [_wrapped(f"! {w}", width, "  ") for w in report.warnings]
    facts = [
        _wrapped(f"{k:<{LABEL_WIDTH}}{v}", width, " " * LABEL_WIDTH)
        for k, v in format.facts(report)
    ]
    verdict = _wrapped(report.verdict, width, "")
    parts = ["\n".join(warnings), verdict, "\n".join(facts), _table(report, width)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _wrapped(text: str, width: int, indent: str) -> str:
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False)


def _table(report: Report, width: int) -> str:
    """Replaced layers, parts of them that stay in float, and kept layers with their reasons."""
    fixed = 14 + 14 + 8 + 9 + 9
    name = max(12, min(width - fixed, max((len(s.name) for s in report.sites), default=0) + 2))
    lines = [f"{'layer':<{name}}{'weight':<14}{'chain':<14}{'error':>8}{'ms':>9}{'was':>9}"]
    lines += [_replaced(s, name) for s in report.replaced]
    kept = [s for s in report.sites if s.decision == KEPT]
    table = "\n".join(lines) if report.replaced else ""
    parts = (table, _in_float(report.replaced, width), _kept(kept, width))
    return "\n\n".join(part for part in parts if part)


def _replaced(site: SiteRecord, name: int) -> str:
    return (
        f"{_cut(site.name, name - 2):<{name}}{format.shape(site):<14}{format.decision(site):<14}"
        f"{site.error or 0:>8.3f}{milliseconds(site.ms_after):>9}"
        f"{milliseconds(site.ms_before):>9}"
    )


def _in_float(sites: Sequence[SiteRecord], width: int) -> str:
    """Chains that an int8 model computes in float, in whole or in part."""
    lines = []
    for kind in float_parts.KINDS:
        names = [site.name for site in sites if site.floats == kind]
        if names:
            text = f"{kind}{'s' * (kind == float_parts.CHAIN)} in float: {_listed(names)}"
            lines.append(_wrapped(text, width, "     "))
    return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _kept(sites: list[SiteRecord], width: int) -> str:
    """Layers that are not replaced, by reason."""
    reasons: dict[str, list[str]] = {}
    for site in sites:
        reasons.setdefault(site.reason, []).append(site.name)
    lines = []
    for reason, layers in reasons.items():
        lines.append(_wrapped(f"kept {_listed(layers)}: {reason}", width, "     "))
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    """The end of a text that is too long: for names of layers it is the distinctive part."""
    return text if len(text) <= width else "…" + text[-(width - 1) :]
