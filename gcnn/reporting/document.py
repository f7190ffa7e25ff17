"""A document of a few kinds of block, rendered as one self-contained HTML page or as Markdown.

Every string in a block is data and is escaped here and nowhere else; only `Figure.svg` is markup.
"""

import html
import re
import textwrap
from dataclasses import dataclass

CSS = """
:root { color-scheme: light dark; --text: #1c2024; --muted: #667079; --line: #dfe3e6; --page: #fff;
  --card: #f6f7f8; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ea; --muted: #99a3ad; --line: #363c43;
  --page: #15181b; --card: #1e2226; --accent: #5cb6ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 82rem;
  background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .75rem; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 2.75rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1.25rem; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 54rem; overflow-wrap: anywhere; }
.lead { padding: .75rem 1rem; border-left: 3px solid var(--accent); background: var(--card);
  font-size: 1.08rem; }
.table { margin: 1rem 0 1.5rem; overflow-x: auto; }
table { border-collapse: collapse; border-bottom: 1px solid var(--line);
  font-size: .8125rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
.caption { margin: 1.25rem 0 -.5rem; color: var(--muted); font-size: .875rem; }
th, td { padding: .35rem .55rem; text-align: right; vertical-align: top; }
tr:not(:has(td:first-child:empty)) td { border-top: 1px solid var(--line); }
th { vertical-align: bottom; color: var(--muted); font-weight: 600; }
td { white-space: nowrap; }
.text { min-width: 7.25rem; max-width: 20rem;
  text-align: left; white-space: normal; overflow-wrap: break-word; }
th:first-child, td:first-child { position: sticky; left: 0; padding-left: 0; background: var(--page); }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; padding: .75rem; border: 1px solid var(--line); border-radius: .5rem; background: #fff; }
figcaption { padding-bottom: .5rem; color: #4a525a; font-size: .875rem; font-weight: 600; }
svg { display: block; width: 100%; height: auto; max-width: 44rem; margin: 0 auto; }
pre, blockquote { margin: .5rem 0 1rem; padding: .75rem 1rem; border-radius: .4rem; background: var(--card); }
pre { overflow-x: auto; font: .8125rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
blockquote { max-width: 54rem; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .5rem 0; }
summary { padding: .35rem 0; cursor: pointer; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: 1.25rem 1rem 3rem; } figure { padding: .4rem; }
  .text { min-width: 6.5rem; max-width: 10rem; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # the page loads and runs nothing, whatever the data says


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


def to_html(title: str, blocks: list) -> str:
    """A complete HTML page with everything inline: no script, no reference to anything outside of it."""
    body = "\n".join(html_block(block) for block in [Heading(title, level=1), *blocks])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def html_block(block) -> str:
    escape = html.escape
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text, lead):
            kind = ' class="lead"' if lead else ""
            return f"<p{kind}>{escape(text)}</p>"
        case Table():
            return html_table(block)
        case Figures(figures):
            drawings = (f"<figure><figcaption>{escape(f.caption)}</figcaption>{f.svg}</figure>" for f in figures)
            return f'<div class="figures">{"".join(drawings)}</div>'
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Sample(prompt, text):
            return f"<blockquote><strong>{escape(prompt)}</strong>{escape(text)}</blockquote>"
        case Details(summary, inner):
            content = "\n".join(html_block(b) for b in inner)
            return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"
    raise TypeError(f"no HTML for {type(block).__name__}")


def html_table(table: Table) -> str:
    def row(cells: list[str], tag: str) -> str:
        kinds = [' class="text"' if i < table.text_columns else "" for i in range(len(cells))]
        return "".join(f"<{tag}{k}>{html.escape(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True))

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    caption = f'<p class="caption">{html.escape(table.caption)}</p>\n' if table.caption else ""
    return (
        f'{caption}<div class="table"><table><thead><tr>{row(table.header, "th")}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


MARKDOWN = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"} | {c: f"\\{c}" for c in "\\`*_[]#~$!"})


def escape_markdown(text: str) -> str:
    """Text on one line, taken literally by Markdown, its tables and HTML."""
    return " ".join(text.split()).translate(MARKDOWN)


def to_markdown(title: str, blocks: list) -> str:
    """The same document in GitHub's Markdown; its figures are figures/<name>.svg beside it."""
    return "\n\n".join(markdown_block(block) for block in [Heading(title, level=1), *blocks]) + "\n"


def markdown_block(block) -> str:
    escape = escape_markdown
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escape(text)}"
        case Paragraph(text, lead):
            return f"**{escape(text)}**" if lead else escape(text)
        case Table():
            return markdown_table(block)
        case Figures(figures, folder):
            return "\n\n".join(f"{escape(f.caption)}:\n\n![]({folder}/{f.name}.svg)" for f in figures)
        case Code(text):
            return fenced(text)
        case Sample(prompt, text):
            lines = (prompt + text).splitlines()
            return fenced("\n".join(textwrap.fill(line, 100, replace_whitespace=False) for line in lines))
        case Details(summary, inner):
            content = "\n\n".join(markdown_block(b) for b in inner)
            summary = html.escape(" ".join(summary.split()))
            return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"
    raise TypeError(f"no Markdown for {type(block).__name__}")


def fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in it, so that nothing ends it early."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def markdown_table(table: Table) -> str:
    rules = ["---" if i < table.text_columns else "---:" for i in range(len(table.header))]
    lines = [[escape_markdown(c) for c in table.header], rules]
    lines += [[escape_markdown(c) for c in cells] for cells in table.rows]
    caption = f"{escape_markdown(table.caption)}\n\n" if table.caption else ""
    return caption + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def to_text(table: Table) -> str:
    """A table in aligned columns for a terminal."""
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.ljust(width) if i < table.text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(line(cells) for cells in lines)
