"""Records of figures that no run has made, for claims whose answer is then known."""

from gcnn.reproduction.records import Curve, Group, Record


def group(name, tests, lr=0.03, valid=100.0, flops=2e6, tokens=None, diverged=(), curve=()):
    """A group whose seeds 1, 2, ... have these test perplexities; `curve` are the validation perplexities of each."""
    seeds = [str(seed) for seed in range(1, len(tests) + 1)]
    perplexities = dict(zip(seeds, map(float, tests), strict=True))
    steps = [100 * i for i in range(1, len(curve) + 1)]
    return Group(
        group=name,
        variant=f"{lr:g}",
        title=f"{name}, learning rate {lr:g}",
        model=name,
        lr=lr,
        parameters=5_000_000,
        flops_per_token=flops,
        receptive_field=int(name) if name.isdecimal() else None,
        tokens=2_000_000,
        test_perplexity=perplexities,
        validation_perplexity=dict.fromkeys(seeds, valid),
        mean=sum(perplexities.values()) / len(tests) if tests else None,
        min=min(perplexities.values(), default=None),
        max=max(perplexities.values(), default=None),
        diverged=list(diverged),
        unfinished=[],
        corpus_tokens=tokens,
        curve=Curve(
            steps=steps if tests else [],
            tokens=[1000 * step for step in steps] if tests else [],
            perplexity={seed: list(curve) for seed in seeds},
        ),
    )


def record(figure, *groups, data="wikitext2", missing=0):
    return Record(
        figure=figure,
        scale="cpu",
        command=f"make reproduce FIGURE={figure}",
        data=data,
        seeds=[1, 2, 3],
        hardware=[],
        git_commits=[],
        missing=missing,
        groups=list(groups),
    )
