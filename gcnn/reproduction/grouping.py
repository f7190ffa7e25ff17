"""Which group of a figure a run belongs to."""

from functools import partial

from gcnn.base.gates import GATES
from gcnn.config.models import ModelConfig
from gcnn.config.schema import TrainConfig
from gcnn.reporting.units import magnitude, plural
from gcnn.reproduction.paper import MODEL_TITLES, model_title

RECIPES = {  # (weight normalisation, clipping) -> group of Figure 6, title
    (True, True): ("both", "both"),
    (True, False): ("no_clipping", "without clipping"),
    (False, True): ("no_weight_norm", "without weight normalisation"),
    (False, False): ("neither", "without either"),
}
FORMS = {  # by table and `model_form`: the paper's model that a smaller one stands for
    "table2": {
        "bottleneck": "gcnn_14b",
        "uniform": "gcnn_13",
        "lstm_2": "lstm_2048x2",
        "lstm_1": "lstm_2048",
    },
    "table3": {"varied": "gcnn_14", "uniform": "gcnn_8", "lstm_1": "lstm_1024"},
    "table4": {"bottleneck": "gcnn_8b", "uniform": "gcnn_9", "lstm_1": "lstm_2048"},
}
SHUFFLED = " in shuffled blocks"  # in the variant and title of a recurrent model


def group_of(figure: str, config: TrainConfig) -> tuple[str, str, str]:
    """The group of a figure to which a run belongs, its variant there, and a title for readers.

    figure: a key of FIGURES. The group is what it compares: the kind of model in the random search,
    what a function of COMPARED returns, or else the gate.
    The variant is the learning rate, and for a recurrent model whether its blocks are shuffled; in
    the random search it is the architecture. The title says both; in the random search it is
    `search_title`, without the architecture.
    config: of a GCNN or an LSTM for a table, and of a model with a gate where the gate is compared.
    """
    model = config.model
    lr = config.optimizer.lr
    if figure == "search":
        return model.kind, architecture(model), search_title(config)
    group, title = COMPARED.get(figure, gate_of)(config)
    order = ""
    if model.recurrent and not (config.trainer.carry_state or config.data.sentences):
        order = SHUFFLED
    return group, f"{lr:g}{order}", f"{title}{order}, learning rate {lr:g}"


def paper_model_of(config: TrainConfig, forms: dict[str, str]) -> tuple[str, str]:
    """The paper's model of the same form, and its title; else the form and the architecture.

    config: of a GCNN or an LSTM. forms: those of one table of FORMS.
    """
    form = model_form(config.model)
    group = forms.get(form, form)
    return group, MODEL_TITLES.get(group) or architecture(config.model)


def softmax_of(config: TrainConfig) -> tuple[str, str]:
    """Softmax and architecture, as group and as title."""
    model = config.model
    group = f"{'adaptive' if model.cutoffs else 'full'} softmax, {architecture(model)}"
    return group, group


def context_of(config: TrainConfig) -> tuple[str, str]:
    """The words of context, and a title."""
    words = config.model.receptive_field
    return str(words), plural(words, "word")


def recipe_of(config: TrainConfig) -> tuple[str, str]:
    """A group of RECIPES, and its title."""
    weight_norm = getattr(config.model, "weight_norm", False)
    return RECIPES[weight_norm, config.trainer.clip_norm is not None]


def model_and_size_of(config: TrainConfig) -> tuple[str, str]:
    """The model and the tokens of its training text, as group and as title."""
    tokens = magnitude(config.data.train_tokens)
    group = f"{config.model.summary()}, first {tokens} tokens"
    return group, group


def gate_of(config: TrainConfig) -> tuple[str, str]:
    """The gate of a model that has one, and its title."""
    gate = config.model.gate
    return gate, GATES[gate].title


COMPARED = {  # figure -> what it compares in a run, as (group, title)
    "table2": partial(paper_model_of, forms=FORMS["table2"]),
    "table3": partial(paper_model_of, forms=FORMS["table3"]),
    "table4": partial(paper_model_of, forms=FORMS["table4"]),
    "fig2": softmax_of,
    "fig4": context_of,
    "figc": context_of,
    "fig6": recipe_of,
    "figs": model_and_size_of,
}


def search_title(config: TrainConfig) -> str:
    """What a trial of the random search drew, as a title.

    As "GCNN; lookup 128; dropout 0.1/0.2/0.3; learning rate 0.03; weight decay 0; state carried".
    Dropout is that of the layers, of the embedding (only if it has its own) and before the softmax.
    """
    model = config.model
    dropouts = [model.dropout, getattr(model, "embedding_dropout", None), model.output_dropout]
    dropout = "/".join(f"{rate:g}" for rate in dropouts if rate is not None)
    title = (
        f"{model.kind.upper()}; lookup {model.embedding_dim}; dropout {dropout}; learning rate "
        f"{config.optimizer.lr:.3g}; weight decay {config.optimizer.weight_decay:g}"
    )
    if config.trainer.carry_state:
        title += "; state carried"
    return title


def model_form(model: ModelConfig) -> str:
    """What tells the models of one table apart at any width; may be a key in FORMS.

    For an LSTM `lstm_<layers>`. For a GCNN `bottleneck` if any block has three convolutions, else
    `uniform` if all convolutions have one kernel size, else `varied`. Only for these two kinds.
    """
    if model.kind == "lstm":
        return f"lstm_{model.num_layers}"
    if any(len(block.convs) == 3 for block in model.blocks):
        return "bottleneck"
    kernel_sizes = set()
    for block in model.blocks:
        kernel_sizes.update(kernel for kernel, _ in block.convs)
    return "uniform" if len(kernel_sizes) == 1 else "varied"


def architecture(model: ModelConfig) -> str:
    """The paper's title of a model; else a GCNN's blocks as in Table 1, or another's summary."""
    return model_title(model) or model.notation()
