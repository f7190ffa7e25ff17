"""Made-up records of figures, for claims whose answer is then known, and made-up run directories.

Nothing here is trained.
"""

import dataclasses
import json
from functools import cache

from gcnn.config.compose import compose_config
from gcnn.config.stored import save_config
from gcnn.reproduction.records import Curve, Group, Record


def group(
    name, tests, lr=0.03, valid=100.0, flops=2e6, tokens=None, diverged=(), curve=(), order=""
):
    """A Group of runs with the seeds 1, 2, ... and these test perplexities; empty: none finished.

    lr: learning rate. valid: the final validation perplexity of each seed. diverged: seeds.
    tokens: of the training text that was used; None: all of it.
    curve: the validation perplexities of each seed, after 100, 200, ... steps.
    order: of the text, as " in shuffled blocks".
    A name of digits is its receptive field, too.
    """
    seeds = [str(seed) for seed in range(1, len(tests) + 1)]
    perplexities = dict(zip(seeds, map(float, tests), strict=True))
    steps = [100 * i for i in range(1, len(curve) + 1)]
    return Group(
        group=name,
        variant=f"{lr:g}{order}",
        title=f"{name}{order}, learning rate {lr:g}",
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
    """The Record of a figure with these groups. missing: how many planned runs have not begun."""
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


config_of = cache(compose_config)  # composing takes a while


def add(
    folder,
    *overrides,
    name=None,
    lr=None,
    seed=1,
    test=None,
    flops=2e6,
    error=None,
    diverged=None,
    valid=(300.0, 200.0, 150.0),
):
    """Write the run directory of a member into `folder`, a sweep's, as the next one by number.

    overrides: its own, as key=value. name: of its folder; None: its number.
    lr: replaces the learning rate in its config alone; None: that of the overrides.
    test: its test perplexity; None: it has not finished. error: why it failed; None: it did not.
    diverged: whether it failed by that; None: an older version, which does not say it.
    valid: validation perplexities after 100, 200, ... steps.
    """
    number = len(list(folder.glob("*")))
    member = folder / (name or str(number))
    member.mkdir(parents=True)
    config = dataclasses.replace(config_of("experiment=cpu/base", *overrides), seed=seed)
    if lr is not None:
        config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=lr))
    save_config(config, member / "config.yaml")
    record = {
        "overrides": ["data.path=/home/me/data", "experiment=cpu/base", *overrides],
    }
    record["overrides"].append(f"seed={seed}")
    record |= {"error": error} if error else {}
    record |= {} if diverged is None else {"diverged": diverged}
    (member / "member.json").write_text(json.dumps(record))
    with (member / "metrics.jsonl").open("w") as file:
        for i, perplexity in enumerate(valid, start=1):
            at = {"step": 100 * i, "epoch": 0.1, "tokens": 1000 * i, "seconds": 1.0}
            print(
                json.dumps({"kind": "validation", **at, "loss": 1.0, "perplexity": perplexity}),
                file=file,
            )
    if test is not None:
        results = {
            "experiment": "cpu/x",
            "command": "python scripts/train.py --multirun experiment=cpu/x "
            "tokenizer.vocabulary=/home/me/words "
            "data.path=/home/me/data",
            "git_commit": "abc",
            "parameters": {"total": 5},
            "flops_per_token": flops,
            "train": {"tokens": 3000, "steps": 300},
            "validation": {"perplexity": valid[-1]},
            "test": {"perplexity": test},
        }
        (member / "results.json").write_text(json.dumps(results))


def add_gates(folder, tests):
    """Add finished members to a sweep. tests: gate -> test perplexities of the seeds 1, 2, ..."""
    for gate, perplexities in tests.items():
        for seed, test in enumerate(perplexities, start=1):
            add(folder, f"model.gate={gate}", seed=seed, test=test)
