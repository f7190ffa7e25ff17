"""Print models' parameters, receptive field and operations beside Table 1.

With --plan: the least time and memory of an epoch of the paper's models on one and on eight GPUs,
from counted operations and bytes (docs/PERFORMANCE.md).
"""

import argparse

from gcnn.base.errors import UsageError, nearest
from gcnn.base.values import positive_int
from gcnn.commands.arguments import new_parser
from gcnn.config.compose import compose_config
from gcnn.config.groups import choices
from gcnn.reporting.document import Table, to_text
from gcnn.reproduction.paper import TABLE_1, VOCABULARIES, model_name, vocabulary_of

WIKITEXT_2 = 33_278  # types
UPDATES = ((1024, 1), (1024, 8), (16384, 1), (16384, 8))  # of --plan: tokens a GPU, GPUs
HEADER = [
    "model",
    "Table 1",
    "blocks",
    "vocabulary",
    "parameters",
    "embedding",
    "body",
    "softmax",
    "receptive field",
    "MFLOPs a token",
]
LEGEND = """
Table 1: the paper's row with this lookup size and these blocks, [kernel size, channels] × repeats.
FLOPs: forward pass, matrix products only, targets as frequent as words of their rank in English."""


def main() -> None:
    """Run `gcnn describe`: print a table with a row for each model, or with --plan `plan_table`.

    The first table has the columns HEADER, and LEGEND follows it. Without a name: all models of
    configs/model that are in no subfolder, with --plan those of Table 1. A name given twice has its
    rows twice. Raises UsageError for an invalid option, a name that is not in configs/model, a
    vocabulary that a model cannot have, and --plan with --vocabulary or a model that is not in
    Table 1.
    """
    arguments = parse_arguments()
    models = choices("model")
    for name in arguments.models:
        if name not in models:
            raise UsageError(
                f"there is no model {name!r}; choose one of: {', '.join(models)}."
                f"{nearest(name, models)}"
            )
    if arguments.plan:
        if arguments.vocabulary is not None:
            raise UsageError("--plan has the paper's vocabularies; leave --vocabulary out.")
        table = plan_table(arguments.models)
        print(f"{table.caption}\n{to_text(table)}")
        return
    names = arguments.models or [name for name in models if "/" not in name]
    rows = [model_row(name, arguments.vocabulary) for name in names]
    print(to_text(Table(HEADER, rows, text_columns=3)))
    print(LEGEND)


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn describe`, from sys.argv. Raises UsageError for an invalid one.

    `vocabulary` is None and `models` empty where they are not given. `models` may be names of no
    model: `main` checks them.
    """
    parser = new_parser(__doc__)
    default = "those without a slash, or with --plan those of Table 1"
    help = f"{', '.join(choices('model'))}; default: {default}"
    parser.add_argument("models", nargs="*", metavar="MODEL", help=help)
    help = (
        "types in the vocabulary; default: those of the data on which the paper trains the model, "
        "or of the smallest data set that has more than its cutoffs"
    )
    parser.add_argument("--vocabulary", type=positive_int, metavar="N", help=help)
    help = "print the least time of an epoch on GPUs instead; default: off"
    parser.add_argument("--plan", action="store_true", help=help)
    return parser.parse_args()


def plan_table(names: list[str]) -> Table:
    """The least minutes and memory of an epoch on GPUs: for each model, a row for each of UPDATES.

    The columns: model; GPUs; tokens a GPU and update; minutes of products, activations, optimizer,
    exchange and the whole epoch (`Epoch`); GB a GPU; the part that bounds it. The caption names the
    GPU. Nothing is measured (see gcnn/benchmarks/plan.py).
    names: of models in Table 1, as "gcnn_8", in the order of the rows; empty: all of them. Raises
    UsageError for any other name.
    """
    from gcnn.benchmarks.plan import GPU, MODELS, plan

    gpu = GPU()
    rows = []
    for name in names or MODELS:
        if name not in MODELS:
            raise UsageError(f"--plan knows the paper's own {', '.join(MODELS)}, not {name}.")
        for tokens, gpus in UPDATES:
            epoch = plan(name, tokens, gpus, gpu)
            parts = [epoch.products, epoch.activations, epoch.optimizer, epoch.exchange]
            minutes = [f"{seconds / 60:.1f}" for seconds in (*parts, epoch.seconds)]
            memory = f"{epoch.memory / 1e9:.1f}"
            rows.append([name, str(gpus), f"{tokens:,}", *minutes, memory, epoch.bound])
    header = ["model", "GPUs", "tokens a GPU and update", "products", "activations", "optimizer"]
    header += ["exchange", "epoch", "GB a GPU", "bound by"]
    caption = (
        f"Least minutes of an epoch on {gpu.name}: {gpu.flops_per_second / 1e12:.0f} TFLOP/s "
        f"in bf16, {gpu.bandwidth / 1e12:.2f} TB/s, {gpu.link / 1e9:.0f} GB/s to the others"
    )
    return Table(header, rows, caption)


def model_row(name: str, vocabulary_size: int | None) -> list[str]:
    """The row of a model under HEADER.

    Table 1's title is empty for a model that is not in it (`model_name`). A receptive field without
    a bound is "unbounded". No memory is taken for weights.
    name: of a file in configs/model, without .yaml. vocabulary_size: None stands for that of the
    data on which the paper trains the model; for a model that is not the paper's, for that of the
    smallest data set with more types than its largest cutoff. Raises UsageError for a vocabulary
    that is not larger than the largest cutoff.
    """
    import torch

    from gcnn.models.language_model import build_model

    config = compose_config(f"model={name}")
    largest_cutoff = max(config.model.cutoffs, default=0)
    if vocabulary_size is None:
        vocabulary_size = vocabulary_of(name)
    if vocabulary_size is None:
        data_sizes = (WIKITEXT_2, *VOCABULARIES.values())
        vocabulary_size = min(size for size in data_sizes if size > largest_cutoff)
    if largest_cutoff >= vocabulary_size:
        raise UsageError(
            f"{name} has cutoffs {config.model.cutoffs}; give --vocabulary more types than "
            f"{largest_cutoff}."
        )
    with torch.device("meta"):  # no memory is taken
        model = build_model(config.model, vocabulary_size)
    sizes = model.parameter_counts()
    paper_name = model_name(config.model)
    return [
        name,
        TABLE_1[paper_name].title if paper_name in TABLE_1 else "",
        config.model.notation(),
        f"{vocabulary_size:,}",
        *(f"{sizes[part] / 1e6:.1f} M" for part in ("total", "embedding", "body", "softmax")),
        str(model.receptive_field or "unbounded"),
        f"{model.flops_per_token() / 1e6:.1f}",
    ]
