"""What the paper claims of each table and figure, and whether our numbers support it.

A claim (in our words) is a list of comparisons, and its verdict follows from them alone: noise.py
says when a comparison holds, is undecided or does not hold, and `RULES` in page.py explain all of
it to the reader.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gcnn.reporting.latency import Latency
from gcnn.reporting.units import decimals
from gcnn.reproduction.comparisons import (
    at_each_size,
    at_equal_operations,
    better_than,
    better_with_context,
    convergence,
    more_context,
    non_linearity,
    ordering,
    responsiveness,
)
from gcnn.reproduction.noise import (
    HOLDS,
    NOT,
    NOT_MEASURED,
    UNDECIDED,
    Comparison,
)
from gcnn.reproduction.paper import TABLE_2, TABLE_3, Published
from gcnn.reproduction.records import Record

IN_PART = "holds in part"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and the function that tests it on our numbers.

    compare: takes a figure's record, or for Table 4 the latency benchmark. A comparison whose
    numbers these lack is NOT_MEASURED in the list that it returns, or left out; so it may be empty.
    """

    text: str
    compare: Callable[[Record | Latency], list[Comparison]]


def verdict(comparisons: list[Comparison], missing: int = 0) -> str:
    """The verdict of a claim: HOLDS, IN_PART, NOT, UNDECIDED or NOT_MEASURED.

    HOLDS if all comparisons hold, IN_PART if some do. If none does: NOT if at least one is decided
    against the claim, else UNDECIDED.
    NOT_MEASURED comes before all of these: if a comparison is not measured, if there is none, or if
    `missing`, the number of planned runs that have not begun, is not 0.
    """
    answers = {comparison.answer for comparison in comparisons}
    if missing or not answers or NOT_MEASURED in answers:
        return NOT_MEASURED
    if HOLDS in answers:
        return HOLDS if len(answers) == 1 else IN_PART
    return NOT if NOT in answers else UNDECIDED


def published_ordering(text: str, table: dict[str, Published], *names: str) -> Claim:
    """The claim that models are in this order of test perplexity, lowest first.

    text: the data, as the claim's text says it. names: the models, best first; keys of `table`,
    whose titles and published perplexities stand in the claim's text, and group names of the record
    (see `ordering`).
    """
    models = []
    for name in names:
        models.append(f"{table[name].title} ({decimals(table[name].perplexity, 1)})")
    return Claim(f"On {text}, the best first: {', '.join(models)}", ordering(*names))


CLAIMS = {
    "table2": published_ordering(
        "Billion Word's sentences", TABLE_2, "gcnn_14b", "gcnn_13", "lstm_2048x2", "lstm_2048"
    ),
    "table3": published_ordering(
        "WikiText-103's running text", TABLE_3, "gcnn_14", "gcnn_8", "lstm_1024"
    ),
    "table4": Claim(
        "GCNN-8B reads one long text about 20 times as fast as LSTM-2048 on a GPU, "
        "at the same throughput",
        responsiveness,
    ),
    "fig2": Claim(
        "For as many operations a token, the adaptive softmax has a lower perplexity than the full "
        "one",
        at_equal_operations,
    ),
    "fig3": Claim("GLU ends lowest, then ReLU, GTU, tanh", ordering("glu", "relu", "gtu", "tanh")),
    "fig4": Claim(
        "More context is better, with quickly diminishing returns past about 20 words", more_context
    ),
    "fig5": Claim(
        "GLU is better than bilinear units, and these than linear ones (on WikiText-2 a 5-gram "
        "between them)",
        non_linearity,
    ),
    "fig6": Claim(
        "Weight normalisation and clipping both speed convergence up, to about twice", convergence
    ),
    "figc": Claim(
        "(None of the paper's.) More context is better past 20 words, too, in layers of one width, "
        "where it costs more operations",
        better_with_context,
    ),
    "figs": Claim(
        "(None of the paper's: there the GCNN is ahead at 100 million tokens.) GCNN ahead of an "
        "LSTM of as many parameters for as many operations, at each size of the text",
        at_each_size,
    ),
    "figg": Claim(
        "(None of the paper's, but of Shazeer's 2020, for a Transformer's feed-forward layers.) "
        "GEGLU, SwiGLU, ReGLU and bilinear units are each better than GLU",
        better_than("glu", "geglu", "swiglu", "reglu", "bilinear"),
    ),
}
