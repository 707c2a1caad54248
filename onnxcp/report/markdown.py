"""The report as Markdown: for a pull request or a wiki page."""

from onnxcp.escape import code, markdown
from onnxcp.report import format
from onnxcp.results import Report, SiteRecord
from onnxcp.words import milliseconds

HEAD = (
    "| layer | weight | decision | error | sensitivity | ms before | ms after | reason |\n"
    "|---|---|---|---:|---:|---:|---:|---|\n"
)


def to_markdown(report: Report) -> str:
    """A verdict, warnings, the figures, and a row for every layer."""
    warnings = "".join(f"> **{markdown(w)}**\n>\n" for w in report.warnings)
    facts = "".join(f"- **{label}**: {markdown(value)}\n" for label, value in format.facts(report))
    rows = "".join(_row(site) for site in report.sites)
    run = f"Made by onnxcp {report.tool['version']}"
    command = f" with {code(report.command)}" if report.command else ""
    return (
        f"# onnxcp: {markdown(report.verdict)}\n\n{warnings.removesuffix('>' + chr(10))}\n{facts}\n"
        f"{HEAD}{rows}\n{run}{command}.\n"
    )


def _row(site: SiteRecord) -> str:
    error = "" if site.error is None else f"{site.error:.3f}"
    before, after = site.sensitivity_before, site.sensitivity_after
    sensitivity = "" if before is None or after is None else f"{before:.2g} → {after:.2g}"
    cells = (
        code(site.name),
        format.shape(site),
        format.with_floats(site),
        error,
        sensitivity,
        milliseconds(site.ms_before),
        milliseconds(site.ms_after),
        markdown(site.reason),
    )
    return f"| {' | '.join(cells)} |\n"
