"""Matplotlib's SVG made fit to stand in a page with others."""

from xml.etree import ElementTree

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


def inline(svg: str, name: str, title: str) -> str:
    """An SVG of matplotlib, changed so that it can be put into an HTML page with others.

    It is on white and has no metadata, no style sheet (which would style the whole page) and no XML
    declaration. All ids, and the references to them, begin with `name`, which must differ between
    the figures of a page. title: for screen readers; see `printable`.
    Side effect: sets ElementTree's prefixes of SVG and XLink for the process.
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
            elif key == f"{{{XLINK}}}href":
                parent.set(key, text.replace("#", f"#{name}-"))
            elif "url(#" in text:  # clip-path, and the fill of a hatch within style
                parent.set(key, text.replace("url(#", f"url(#{name}-"))
    root.set("role", "img")
    root.set("style", "background: #fff; stroke-linejoin: round; stroke-linecap: butt")
    heading = ElementTree.Element(f"{{{SVG}}}title")
    heading.text = printable(title)
    root.insert(0, heading)
    return ElementTree.tostring(root, encoding="unicode")


def printable(text: str) -> str:
    """The text with "?" for each character that is not printable, as `str.isprintable` has it.

    Some of these, as control characters, are not allowed in XML. Line ends are replaced as well.
    """
    return "".join(c if c.isprintable() else "?" for c in text)
