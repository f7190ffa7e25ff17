"""Print models' parameters, receptive field and operations beside Table 1.

With --plan: the least time and memory of an epoch of the paper's models on one and on eight GPUs, from counted
operations and bytes (docs/PERFORMANCE.md).
"""

from gcnn.base.errors import UsageError
from gcnn.base.values import positive_int
from gcnn.commands.arguments import new_parser
from gcnn.config.compose import compose_config
from gcnn.config.groups import choices, nearest
from gcnn.reporting.document import Table, to_text
from gcnn.reproduction.paper import TABLE_1, VOCABULARIES, model_name, vocabulary_of

WIKITEXT_2 = 33_278  # types


def main() -> None:
    parser = new_parser(__doc__)
    models = choices("model")
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"{', '.join(models)}; default: all"
    )
    help = "types; default: those of its data in the paper, or of the smallest data set that its cutoffs fit"
    parser.add_argument("--vocabulary", type=positive_int, metavar="N", help=help)
    parser.add_argument(
        "--plan", action="store_true", help="an epoch on GPUs instead; default: off"
    )
    arguments = parser.parse_args()
    for name in arguments.models:
        if name not in models:
            raise UsageError(
                f"there is no model {name!r}; choose one of: {', '.join(models)}.{nearest(name, models)}"
            )
    if arguments.plan:
        table = plan_table(arguments.models)
        print(f"{table.caption}\n{to_text(table)}")
        return
    names = arguments.models or [name for name in models if "/" not in name]
    rows = [describe(name, arguments.vocabulary) for name in names]
    header = ["model", "Table 1", "blocks", "vocabulary", "parameters", "embedding", "body", "softmax",
              "receptive field", "MFLOPs a token"]  # fmt: skip
    print(to_text(Table(header, rows, text_columns=3)))
    print(
        "\nTable 1: the paper's row with this lookup size and these blocks, [kernel size, channels] × repeats."
    )
    print(
        "FLOPs: forward pass, matrix products only, targets as frequent as words of their rank in English."
    )


def plan_table(names: list[str]) -> Table:
    """An epoch of each model at the paper's updates and at large ones. Raises UsageError for one not in Table 1."""
    from gcnn.benchmarks.plan import GPU, MODELS, plan

    gpu, rows = GPU(), []
    for name in names or MODELS:
        if name not in MODELS:
            raise UsageError(f"--plan knows the paper's own {', '.join(MODELS)}, not {name}.")
        for tokens, gpus in ((1024, 1), (1024, 8), (16384, 1), (16384, 8)):
            epoch = plan(name, tokens, gpus, gpu)
            parts = (
                epoch.products,
                epoch.activations,
                epoch.optimizer,
                epoch.exchange,
                epoch.seconds,
            )
            times = [f"{seconds / 60:.1f}" for seconds in parts]
            rows.append(
                [name, str(gpus), f"{tokens:,}", *times, f"{epoch.memory / 1e9:.1f}", epoch.bound]
            )
    header = ["model", "GPUs", "tokens a GPU and update", "products", "activations", "optimizer", "exchange", "epoch",
              "GB a GPU", "bound by"]  # fmt: skip
    return Table(header, rows, f"Least minutes of an epoch on {gpu.name}: {gpu.flops / 1e12:.0f} TFLOP/s in bf16, "
                 f"{gpu.bandwidth / 1e12:.2f} TB/s, {gpu.link / 1e9:.0f} GB/s to the others")  # fmt: skip


def describe(name: str, vocabulary_size: int | None) -> list[str]:
    """A row of the table. Raises UsageError for a vocabulary below its cutoffs."""
    import torch

    from gcnn.models.language_model import build_model

    config = compose_config(f"model={name}")
    largest_cutoff = max(config.model.cutoffs, default=0)
    sizes = (size for size in (WIKITEXT_2, *VOCABULARIES.values()) if size > largest_cutoff)
    vocabulary_size = vocabulary_size or vocabulary_of(name) or min(sizes)
    if largest_cutoff >= vocabulary_size:
        raise UsageError(
            f"{name} has cutoffs {config.model.cutoffs}; give --vocabulary more types than {vocabulary_size}."
        )
    with torch.device("meta"):  # no memory is taken
        model = build_model(config.model, vocabulary_size)
    sizes = model.parameter_counts()
    same = model_name(config.model)
    return [
        name,
        TABLE_1[same].title if same in TABLE_1 else "",
        config.model.notation(),
        f"{vocabulary_size:,}",
        *(f"{sizes[part] / 1e6:.1f} M" for part in ("total", "embedding", "body", "softmax")),
        str(model.receptive_field or "unbounded"),
        f"{model.flops_per_token() / 1e6:.1f}",
    ]
