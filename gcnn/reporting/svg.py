"""Matplotlib's SVG made fit to stand in a page with others."""

import re
from xml.etree import ElementTree

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


def inline(svg: str, name: str, title: str) -> str:
    """Matplotlib's SVG made fit to stand in a page with others.

    Without metadata and style sheet (which would style the whole page), with ids that begin with
    the figure's name, and with a title for screen readers.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
        for key, text in parent.attrib.items():
            if key == "id":
                parent.set(key, f"{name}-{text}")
            elif key in (f"{{{XLINK}}}href", "clip-path"):
                parent.set(key, re.sub("#", f"#{name}-", text))
    root.set("role", "img")
    root.set("style", "background: #fff; stroke-linejoin: round; stroke-linecap: butt")
    heading = ElementTree.Element(f"{{{SVG}}}title")
    heading.text = printable(title)
    root.insert(0, heading)
    return ElementTree.tostring(root, encoding="unicode")


def printable(text: str) -> str:
    """The text without the control characters that XML cannot hold."""
    return "".join(c if c.isprintable() else "?" for c in text)
