"""A document as a list of blocks, rendered as one HTML page (page.html, page.css) or as Markdown.

The HTML page refers to nothing outside of it. Every string in a block is data, escaped where it is
rendered; only `Figure.svg` is markup.
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
    """Rows of cells. The first `text_columns` columns are text, the others numbers."""

    header: list[str]
    rows: list[list[str]]
    caption: str = ""
    text_columns: int = 1


@dataclass
class Figure:
    """An SVG drawing (markup); beside the Markdown version its file is <folder>/<name>.svg."""

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
    """One row an item; `columns` has, by title, the function that makes a cell of an item."""
    rows = []
    for item in items:
        rows.append([cell(item) for cell in columns.values()])
    return Table(list(columns), rows, text_columns=text_columns)


def to_html(title: str, blocks: list) -> str:
    """A complete HTML page with everything inline: no script, no reference to anything outside."""
    page = TEMPLATES.get_template("page.html")
    return page.render(title=title, blocks=[Heading(title, level=1), *blocks])


MARKDOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"} | {c: f"\\{c}" for c in "\\`*_[]#~$!"}
)


def escape_markdown(text: str) -> str:
    """Text on one line, taken literally by Markdown, its tables and HTML."""
    return " ".join(text.split()).translate(MARKDOWN)


def to_markdown(title: str, blocks: list) -> str:
    """The document in GitHub's Markdown. It refers to files of its figures, which the caller
    writes.
    """
    return markdown_blocks([Heading(title, level=1), *blocks]) + "\n"


def markdown_blocks(blocks: list) -> str:
    return "\n\n".join(map(markdown_block, blocks))


def markdown_block(block) -> str:
    """One block as Markdown, without a newline at its end."""
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
            texts = []
            for figure in figures:
                texts.append(f"{escape(figure.caption)}:\n\n![]({folder}/{figure.name}.svg)")
            return "\n\n".join(texts)
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
    """A code block; its fence is longer than any run of backticks in the text, so nothing ends it
    early.
    """
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def to_text(table: Table) -> str:
    """A table as aligned columns for a terminal, without its caption."""
    columns = []
    for i, column in enumerate(zip(table.header, *table.rows, strict=True)):
        width = max(map(len, column))
        align = str.ljust if i < table.text_columns else str.rjust
        columns.append([align(cell, width) for cell in column])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
