"""A document of a few kinds of block, rendered as one self-contained HTML page (page.html, page.css) or as Markdown.

Every string in a block is data, escaped where it is rendered; only `Figure.svg` is markup.
"""

import html
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass
class Heading:
    text: str
    level: int = 2


@dataclass
class Paragraph:
    text: str
    lead: bool = False


@dataclass
class Table:
    """Rows of cells; the first `text_columns` columns are text, the others numbers, aligned on the right."""

    header: list[str]
    rows: list[list[str]]
    caption: str = ""
    text_columns: int = 1


@dataclass
class Figure:
    """An SVG drawing (markup, not text) whose file in the Markdown version is <folder>/<name>.svg."""

    name: str
    svg: str
    caption: str


@dataclass
class Figures:
    """Drawings side by side where the page is wide enough."""

    figures: list[Figure]
    folder: str = "figures"  # of their files, as seen from the Markdown version


@dataclass
class Code:
    text: str


@dataclass
class Sample:
    """Generated text after its prompt."""

    prompt: str
    text: str


@dataclass
class Details:
    """Blocks folded away under a summary."""

    summary: str
    blocks: list


def table_of(
    items: Iterable, columns: dict[str, Callable[[Any], str]], text_columns: int = 1
) -> Table:
    """A table with one row an item; `columns` are titles, each with the function that makes its cell of an item."""
    return Table(
        list(columns),
        [[cell(item) for cell in columns.values()] for item in items],
        "",
        text_columns,
    )


def to_html(title: str, blocks: list) -> str:
    """A complete HTML page with everything inline: no script, no reference to anything outside of it."""
    return TEMPLATES.get_template("page.html").render(
        title=title, blocks=[Heading(title, level=1), *blocks]
    )


MARKDOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"} | {c: f"\\{c}" for c in "\\`*_[]#~$!"}
)


def escape_markdown(text: str) -> str:
    """Text on one line, taken literally by Markdown, its tables and HTML."""
    return " ".join(text.split()).translate(MARKDOWN)


def to_markdown(title: str, blocks: list) -> str:
    """The same document in GitHub's Markdown; its figures are files beside it."""
    return markdown_blocks([Heading(title, level=1), *blocks]) + "\n"


def markdown_blocks(blocks: list) -> str:
    return "\n\n".join(map(markdown_block, blocks))


def markdown_block(block) -> str:
    escape = escape_markdown
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escape(text)}"
        case Paragraph(text, lead):
            return f"**{escape(text)}**" if lead else escape(text)
        case Table(header, rows, caption, text_columns):
            rules = ["---" if i < text_columns else "---:" for i in range(len(header))]
            lines = [map(escape, header), rules, *(map(escape, row) for row in rows)]
            table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
            return f"{escape(caption)}\n\n{table}" if caption else table
        case Figures(figures, folder):
            return "\n\n".join(
                f"{escape(f.caption)}:\n\n![]({folder}/{f.name}.svg)" for f in figures
            )
        case Code(text):
            return fenced(text)
        case Sample(prompt, text):
            lines = (prompt + text).splitlines()
            return fenced(
                "\n".join(textwrap.fill(line, 100, replace_whitespace=False) for line in lines)
            )
        case Details(summary, inner):
            summary = html.escape(" ".join(summary.split()))
            return (
                f"<details><summary>{summary}</summary>\n\n{markdown_blocks(inner)}\n\n</details>"
            )


def fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in it, so that nothing ends it early."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def to_text(table: Table) -> str:
    """A table in aligned columns for a terminal."""
    columns = []
    for i, column in enumerate(zip(table.header, *table.rows, strict=True)):
        width = max(map(len, column))
        columns.append(
            [cell.ljust(width) if i < table.text_columns else cell.rjust(width) for cell in column]
        )
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
