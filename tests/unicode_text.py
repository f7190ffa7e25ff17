"""Text for property-based tests: any Unicode, and characters that are often misread."""

import re

from hypothesis import strategies as st

AWKWARD = [
    "<eos>", "<unk>", "</s>", "<0x41>", "|||", "a", "b", "\u00e9", "e\u0301",
    "\U0001f469\u200d\U0001f680", "\ufeff", "\0", " ", "\t", "\r", "\x0b", "\x1c", "\x85",
    "\u200b", "\u2028", "\u3000",
]  # fmt: skip
some = st.lists(st.sampled_from(AWKWARD), max_size=12)
any_line = (
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=30)
    | some.map("".join)
    | some.map(" ".join)
)
any_lines = st.lists(any_line, max_size=8)


def unmarked(line: str) -> str:
    """A line, stripped, without the `<eos>` that stands for its end."""
    return re.sub(r"(?:(?<!\S)<eos>\s*)+\Z", "", line).strip()


TEXT = [
    "to be , or not to be : that is the question :",
    "whether 't is nobler in the mind to suffer",
    "the slings and arrows of outrageous fortune ,",
    "",
    "or to take arms against a sea of troubles , \u00e0 la mer",
] * 20
