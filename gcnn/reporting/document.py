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
    """A heading. Level 1 is the document's title."""

    text: str
    level: int = 2


@dataclass
class Paragraph:
    """A paragraph. `lead`: set off, as the first one of a page."""

    text: str
    lead: bool = False


@dataclass
class Table:
    """Rows of cells, each row as long as the header.

    The first `text_columns` columns are text, aligned left; the others are numbers, aligned right.
    """

    header: list[str]
    rows: list[list[str]]
    caption: str = ""
    text_columns: int = 1


@dataclass
class Figure:
    """A drawing, to be put into `Figures`.

    The Markdown version links to a file <folder>/<name>.svg, where `folder` is that of `Figures`.
    """

    name: str
    svg: str  # markup, which is put into the HTML page as it is
    caption: str


@dataclass
class Figures:
    """Drawings side by side where the page is wide enough."""

    figures: list[Figure]
    folder: str = "figures"  # of their files, relative to the Markdown version


@dataclass
class Code:
    """Text in lines of a fixed width."""

    text: str


@dataclass
class Sample:
    """Generated text after its prompt."""

    prompt: str
    text: str  # without the prompt


@dataclass
class Details:
    """Blocks folded away under a summary."""

    summary: str
    blocks: list["Block"]


Block = Heading | Paragraph | Table | Figures | Code | Sample | Details


def table_of(
    items: Iterable, columns: dict[str, Callable[[Any], str]], text_columns: int = 1
) -> Table:
    """A table with one row for each item; without items it has no rows.

    columns: title -> function from an item to the text of its cell.
    text_columns: how many of the first columns are text (see Table).
    """
    rows = []
    for item in items:
        rows.append([cell(item) for cell in columns.values()])
    return Table(list(columns), rows, text_columns=text_columns)


def to_html(title: str, blocks: list[Block]) -> str:
    """A complete HTML page with everything inline: no script, no reference to anything outside.

    The title is also its first heading. No newline at the end.
    """
    page = TEMPLATES.get_template("page.html")
    return page.render(title=title, blocks=[Heading(title, level=1), *blocks])


MARKDOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"} | {c: f"\\{c}" for c in "\\`*_[]#~$!"}
)


def escape_markdown(text: str) -> str:
    """Text with the characters escaped that are markup in Markdown, its tables and HTML.

    The result is one line: white space is dropped at both ends, and elsewhere becomes a single
    blank. What begins a list or draws a rule at the start of a line ("- ", "+ ", "1. ", "---") is
    not escaped.
    """
    return " ".join(text.split()).translate(MARKDOWN)


def to_markdown(title: str, blocks: list[Block]) -> str:
    """The document in GitHub's Markdown, with the title as its first heading.

    Figures are links to the files <folder>/<name>.svg, which the caller has to write. The document
    ends in a newline.
    """
    return markdown_blocks([Heading(title, level=1), *blocks]) + "\n"


def markdown_blocks(blocks: list[Block]) -> str:
    """Blocks as Markdown, with empty lines between them and without a newline at the end."""
    return "\n\n".join(map(markdown_block, blocks))


def markdown_block(block: Block) -> str:
    """One block as Markdown, without a newline at its end.

    A figure is its caption and a link to <folder>/<name>.svg. A sample is a code block of the
    prompt and the text, wrapped at 100 columns.
    """
    escape = escape_markdown
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escape(text)}"
        case Paragraph(text, lead):
            return f"**{escape(text)}**" if lead else escape(text)
        case Table(caption=caption):
            table = markdown_table(block)
            return f"{escape(caption)}\n\n{table}" if caption else table
        case Figures(figures, folder):
            texts = []
            for figure in figures:
                texts.append(f"{escape(figure.caption)}:\n\n![]({folder}/{figure.name}.svg)")
            return "\n\n".join(texts)
        case Code(text):
            return fenced(text)
        case Sample(prompt, text):
            lines = []
            for line in (prompt + text).splitlines():
                lines.append(textwrap.fill(line, 100, replace_whitespace=False))
            return fenced("\n".join(lines))
        case Details(summary, inner):
            summary = html.escape(" ".join(summary.split()))
            return (
                f"<details><summary>{summary}</summary>\n\n{markdown_blocks(inner)}\n\n</details>"
            )


def markdown_table(table: Table) -> str:
    """A table as Markdown, without its caption and without a newline at its end."""
    rules = []
    for i in range(len(table.header)):
        rules.append("---" if i < table.text_columns else "---:")
    lines = [[escape_markdown(title) for title in table.header], rules]
    for row in table.rows:
        lines.append([escape_markdown(cell) for cell in row])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fenced(text: str) -> str:
    """Text as a code block of Markdown, without a newline at its end.

    White space at the end of the text is dropped. The fence is longer than any run of backticks
    in the text, so nothing ends the block early.
    """
    longest_run = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest_run + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def to_text(table: Table) -> str:
    """A table as aligned columns for a terminal, without its caption or a newline at its end.

    Raises ValueError if a row is shorter or longer than the header.
    """
    columns = []
    for i, column in enumerate(zip(table.header, *table.rows, strict=True)):
        width = max(map(len, column))
        align = str.ljust if i < table.text_columns else str.rjust
        columns.append([align(cell, width) for cell in column])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
