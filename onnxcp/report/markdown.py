"""Reports as Markdown, for a pull request or a wiki page."""

from onnxcp import __version__
from onnxcp.escape import code, markdown
from onnxcp.report.table import Kind, Page, Table

RULES = {Kind.NAME: "---", Kind.TEXT: "---", Kind.NUMBER: "---:"}


def to_markdown(page: Page) -> str:
    """The page as Markdown: headline, warnings, facts and tables."""
    warnings = ">\n".join(f"> **{markdown(warning)}**\n" for warning in page.warnings)
    facts = "".join(_fact(label, value) for label, value in page.facts)
    command = f" with {code(page.command)}" if page.command else ""
    head = f"# onnxcp: {markdown(page.headline)}\n\n{warnings}\n{facts}"
    footer = f"Made by onnxcp {__version__}{command}.\n"
    return "\n".join([head, *map(_table, page.tables), footer])


def _fact(label: str, value: str) -> str:
    return f"- **{label}**: {markdown(value)}\n" if label else f"- {markdown(value)}\n"


def _table(table: Table) -> str:
    title = f"## {markdown(table.title)}\n\n" if table.title else ""
    heads = " | ".join(column.title for column in table.columns)
    rules = "|".join(RULES[column.kind] for column in table.columns)
    kinds = [column.kind for column in table.columns]
    rows = "".join(f"| {' | '.join(map(_cell, row, kinds))} |\n" for row in table.rows)
    return f"{title}| {heads} |\n|{rules}|\n{rows}"


def _cell(text: str, kind: Kind) -> str:
    return code(text) if kind is Kind.NAME and text else markdown(text)
