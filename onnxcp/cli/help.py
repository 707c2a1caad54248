"""`onnxcp help`: the manual, which is the Markdown pages in the folder `docs` of this package.

A page's file name is its topic, its first heading the title and its first sentence the summary.
On a terminal a page is rendered for its width; elsewhere it is printed as Markdown.
"""

import re
import sys
from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Any

import typer

from onnxcp.cli.console import errors_as_lines, width
from onnxcp.errors import UsageError

LINK = re.compile(r"\[([^\]]+)\]\(([a-z0-9-]+)\.md(?:#[^)]*)?\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
BORDER = re.compile(r"(?<!\\)\|")
SUMMARY = re.compile(r"^# .*\n+((?:.|\n)+?[.!?])(?=\s)")
MIN_TEXT_COLUMN = 16  # of a table: text in narrower columns is hard to read


def topics() -> dict[str, str]:
    """The Markdown of every page, by topic."""
    pages = (resources.files("onnxcp") / "docs").iterdir()
    return {
        page.name.removesuffix(".md"): page.read_text(encoding="utf-8")
        for page in sorted(pages, key=lambda page: page.name)
        if page.name.endswith(".md")
    }


def summary(page: str) -> str:
    """The first sentence below the title, on one line."""
    sentence = SUMMARY.match(page)
    return " ".join(sentence[1].split()) if sentence else ""


def help(
    context: typer.Context,
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            show_default=False,
            autocompletion=lambda: list(topics()),
            help="The page to show; without it the topics are listed.",
        ),
    ] = None,
) -> None:
    """Show a page of the manual, or list its topics."""
    with errors_as_lines(0):
        pages = topics()
        if topic is None:
            typer.echo(_contents(pages))
            return
        if topic not in pages:
            raise UsageError(f"help {topic}: {_remedy(topic, list(pages), _commands(context))}")
        page = _for_the_command_line(pages[topic])
        if sys.stdout.isatty():
            _render(page, width())
        else:
            typer.echo(page, nl=False)


def _contents(pages: dict[str, str]) -> str:
    column = max(map(len, pages)) + 2
    rows = [f"{topic:<{column}}{summary(page)}" for topic, page in pages.items()]
    return "\n".join([*rows, "", "onnxcp help TOPIC shows a page; start with: onnxcp help guide"])


def _commands(context: typer.Context) -> Sequence[str]:
    group: Any = context.find_root().command
    names: Sequence[str] = group.list_commands(context)
    return names


def _remedy(topic: str, known: Sequence[str], commands: Sequence[str]) -> str:
    """What to do about a topic that has no page."""
    from difflib import get_close_matches

    choice = f"choose one of {', '.join(known)}"
    if topic in commands:
        return f"a command has no page; see onnxcp {topic} --help, or {choice}"
    near = get_close_matches(topic.lower(), known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"no such topic; {hint}{choice}"


def _for_the_command_line(page: str) -> str:
    """Links to other pages as commands, pictures as their descriptions."""
    page = PICTURE.sub(r"(Picture: \1)", page)
    return LINK.sub(lambda link: f"{link[1]} (`onnxcp help {link[2]}`)", page)


def _render(page: str, columns: int) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    fitting = TABLE.sub(lambda table: _fitted(table[0], columns), page)
    Console(width=columns).print(Markdown(fitting, code_theme="ansi_dark", hyperlinks=False))


def _fitted(table: str, columns: int) -> str:
    """A table as it is, or one item a row where the table is too wide."""
    rows = [_cells(line) for line in table.splitlines()]
    needed = sum(_least_width([row[k] for row in rows[:1] + rows[2:]]) for k in range(len(rows[0])))
    if needed + 2 * (len(rows[0]) - 1) <= columns:
        return table
    return "\n".join(_item(rows[0], row) for row in rows[2:]) + "\n"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in BORDER.split(line.strip())[1:-1]]


def _least_width(cells: Sequence[str]) -> int:
    """Of a column: its longest word, and room for text where there is text."""
    shown = [cell.replace("`", "").replace("*", "") for cell in cells]
    words = max((len(word) for cell in shown for word in cell.split()), default=0)
    return max(words, min(MIN_TEXT_COLUMN, max(map(len, shown))))


def _item(header: Sequence[str], row: Sequence[str]) -> str:
    named = [f"{name}: {cell}" if name else cell for name, cell in zip(header, row, strict=True)]
    facts = [text for text, cell in zip(named[1:], row[1:], strict=True) if cell]
    return f"- **{row[0].strip('*')}**  \n  {'; '.join(facts)}"
