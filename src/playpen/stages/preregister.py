"""Say what a comparison of selections will be, before any of its arms is trained.

Question: which rows will each arm train on, with how many seeds, and which difference will be tested?

    playpen preregister --model runs/demo/base --data runs/demo/data --init runs/demo/first --splits large_pool \\
        --budgets 20000 --subject sae --arms sae '{kind: picked, scores: runs/demo/predictions}' \\
        random '{kind: picked, rule: {kind: random}}' nothing '{kind: nothing}' --root runs/mine

The artifact holds the very rows of every arm, budget and seed (`choices`), and its fingerprint stands for all of it: `compare`
trains what is written here and can choose nothing, so that an outcome cannot have shaped the question (pre-registration:
Nosek et al. 2018, "The preregistration revolution", PNAS 115, https://doi.org/10.1073/pnas.1708274114). Its manifest says when
it was made, which is before any arm was trained.

Writes `choices` (budget, arm, seed, row_id), `plan.md` and `metrics.json` (rows, tokens and optimiser steps of each arm).
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError, model_validator
from tyro.conf import Suppress
from tyro.constructors import PrimitiveConstructorSpec

from playpen.config import Input, PlaypenError, config, did_you_mean, to_plain
from playpen.lora_settings import LoraSettings
from playpen.needed import Needed
from playpen.selection_budget import Budget
from playpen.selection_rules import Method, TopK, draw_alike
from playpen.stages import select
from playpen.tables import read_splits, write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1


@config
class Picked:
    """Rows picked by a rule of select, up to the budget."""

    kind: Suppress[Literal["picked"]] = "picked"
    rule: Annotated[Method, Field(discriminator="kind")] = TopK()
    """How to choose; without a budget of its own."""
    scores: Input | None = None
    """Scores or predictions of the rows, for the rules that need them."""


@config
class Matched:
    """Random rows with the counts of source, length and answer length of another arm: the control for all three."""

    kind: Suppress[Literal["matched"]] = "matched"
    like: str
    """The arm to match, seed by seed."""


@config
class Everything:
    """All rows, whatever the budget: what more data would give."""

    kind: Suppress[Literal["everything"]] = "everything"


@config
class Nothing:
    """No row: the model that every arm starts from."""

    kind: Suppress[Literal["nothing"]] = "nothing"


def _read_arm(words: list[str]) -> Any:
    import yaml

    try:
        return TypeAdapter(Arm).validate_python(yaml.safe_load(words[0]))
    except (yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"'{words[0]}' is no arm, such as '{{kind: picked, scores: runs/demo/predictions}}': {error}") from None


ON_THE_COMMAND_LINE = PrimitiveConstructorSpec(
    nargs=1,
    metavar="'{kind: ...}'",
    instance_from_str=_read_arm,
    is_instance=lambda value: isinstance(value, Picked | Matched | Everything | Nothing),
    str_from_instance=lambda arm: [str(to_plain(arm))],
)
"""An arm in YAML as one word, because flags cannot tell where an arm inside a mapping ends."""
Arm = Annotated[Picked | Matched | Everything | Nothing, Field(discriminator="kind"), ON_THE_COMMAND_LINE]


@config
class Config(LoraSettings):
    """Say what a comparison will be."""

    model: Input
    """Base model: an artifact of load-model or pretrain."""
    data: Input
    """Artifact of build-data, made with this model's tokenizer; its `test` split is what the arms are judged by."""
    init: Input | None = None
    """An adapter on the same base that every arm goes on from; a new one when left out."""
    splits: Annotated[tuple[Literal["train", "pool", "large_pool"], ...], Field(min_length=1)] = ("pool",)
    """Which rows of the data the arms choose from."""
    arms: Annotated[dict[str, Arm], Field(min_length=2)]
    """The arms by name."""
    subject: str
    """The arm that is held against the others."""
    family: tuple[str, ...] = ()
    """Arms that the claim is about: p values are adjusted over them and all budgets. Left out: every arm within the budget but the subject."""
    budgets: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Tokens that an arm may train on; each is a comparison of its own."""
    seeds: PositiveInt = 10
    """Trainings of each arm and budget, and draws where chance picks. A sign-flip over n seeds never gives less than 2 / 2^n."""
    needed: Needed = Needed()
    """What the claims of evidence need to hold, and the level at which an arm is beaten."""
    claim: str = ""
    """What is expected, in a sentence; for the record."""
    epochs: PositiveFloat = 1.0
    """Passes over an arm's rows."""
    seed: int = 0
    """First seed of trainings and draws; the others follow it."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        named = {"subject": self.subject} | {f"family.{i}": name for i, name in enumerate(self.family)}
        named |= {f"arms.{name}.like": arm.like for name, arm in self.arms.items() if isinstance(arm, Matched)}
        for field, name in named.items():
            if name not in self.arms:
                raise ValueError(f"{field} is '{name}', which is no arm{did_you_mean(name, list(self.arms))}")
        if not all(isinstance(self.arms[name], Picked) for field, name in named.items() if not field.startswith("family")):
            raise ValueError("the subject, and an arm that another is matched to, must be picked by a rule")
        for name, arm in self.arms.items():
            if isinstance(arm, Picked) and (not isinstance(arm.rule, Budget) or arm.rule.limited):
                raise ValueError(f"arms.{name}: its rule must leave k, tokens and labels to budgets; {arm.rule.kind} does not")
        if self.subject in self.family:
            raise ValueError(f"family holds the subject '{self.subject}', which cannot be compared with itself")
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError("budgets holds something twice")
        return self

    @property
    def tested(self) -> tuple[str, ...]:
        """The family, or all arms within the budget but the subject."""
        free = (Everything, Nothing)
        return self.family or tuple(name for name, arm in self.arms.items() if name != self.subject and not isinstance(arm, free))

    @property
    def least_p(self) -> float:
        """The least p, adjusted, that so many seeds can give to the best of the family, whatever its effect."""
        return min(1.0, 2 / 2**self.seeds * len(self.tested) * len(self.budgets))


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Choose the rows of every arm, and write them down."""
    from playpen.models import check_tokens

    check_tokens(config.data, config.model)
    rows = read_splits(config.data, config.splits, ["row_id", "source", "num_tokens", "num_labels"])
    if max(config.budgets) >= rows["num_tokens"].sum():
        raise PlaypenError(
            f"preregister: a budget of {max(config.budgets)} tokens takes all {rows['num_tokens'].sum()} of {' + '.join(config.splits)}, so "
            "that every arm would be the same; lower budgets"
        )
    chosen = choices(config, rows)
    write_table(out / "choices.parquet", chosen)
    write_json(out / "metrics.json", {"arms": sizes(config, chosen, rows).to_dict("records")})
    (out / "plan.md").write_text(plan_text(config))


def sizes(config: Config, chosen: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return budget, arm, rows, tokens and labels (answer tokens) of each arm, once each, and its optimiser steps; the means over seeds."""
    from playpen.retraining import num_steps

    columns = {"rows": ("row_id", "size"), "tokens": ("num_tokens", "sum"), "labels": ("num_labels", "sum")}
    found: Any = chosen.merge(rows, on="row_id", how="left").groupby(["budget", "arm", "seed"]).agg(**columns)
    settings: Any = config
    found["steps"] = [num_steps(count, settings) for count in found["rows"]]
    every = pd.MultiIndex.from_product([config.budgets, config.arms], names=["budget", "arm"])
    return found.groupby(["budget", "arm"]).mean().reindex(every, fill_value=0.0).reset_index()


def choices(config: Config, rows: pd.DataFrame) -> pd.DataFrame:
    """Return budget, arm, seed and row_id of everything that will be trained on, in this order of the columns and the config."""
    offered = {name: _offered(config, name, arm) for name, arm in config.arms.items() if isinstance(arm, Picked)}
    parts = []
    for budget in config.budgets:
        for seed in range(config.seed, config.seed + config.seeds):
            kept = {name: _pick(config, name, table, budget, seed) for name, table in offered.items()}
            kept |= {name: _other(config, name, rows, kept, seed) for name in config.arms if name not in kept}
            parts += [pd.DataFrame({"budget": budget, "arm": name, "seed": seed, "row_id": kept[name]}) for name in config.arms]
    return pd.concat(parts, ignore_index=True).astype({"budget": "int64", "seed": "int32"})


def _offered(config: Config, name: str, arm: Picked) -> pd.DataFrame:
    """Return the rows that an arm chooses from, with its scores."""
    try:
        rule = replace(arm.rule, tokens=1)
        return select.read_rows(select.Config(data=config.data, splits=config.splits, scores=arm.scores, method=rule))
    except PlaypenError as error:
        raise PlaypenError(f"preregister: arm '{name}': {error}") from None


def _pick(config: Config, name: str, offered: pd.DataFrame, budget: int, seed: int) -> np.ndarray:
    """Return the row_ids that an arm's rule keeps, in ascending order."""
    arm = config.arms[name]
    assert isinstance(arm, Picked)
    try:
        found = select.in_order(offered, replace(arm.rule, tokens=budget), seed)
    except PlaypenError as error:
        raise PlaypenError(f"preregister: arm '{name}': {error}") from None
    if not found["kept"].any():
        raise PlaypenError(f"preregister: arm '{name}' keeps no row at a budget of {budget} tokens; raise the budget")
    return np.sort(found.loc[found["kept"], "row_id"].to_numpy(str))


def _other(config: Config, name: str, rows: pd.DataFrame, kept: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """Return the row_ids of an arm that no rule picks, in ascending order."""
    arm = config.arms[name]
    if isinstance(arm, Nothing):
        return np.array([], str)
    if isinstance(arm, Everything):
        return np.sort(rows["row_id"].to_numpy(str))
    assert isinstance(arm, Matched)
    drawn = draw_alike(rows, rows["row_id"].isin(kept[arm.like]), np.random.default_rng([seed, list(config.arms).index(name)]))
    return np.sort(rows.loc[drawn >= 1, "row_id"].to_numpy(str))


def plan_text(config: Config) -> str:
    """Return the plan in words."""
    claim, needed = f"Claim: {config.claim}\n\n" if config.claim else "", config.needed
    return (
        f"# Comparison, as planned\n\n{claim}"
        f"- Subject: `{config.subject}`. Held against, with p values adjusted over all of them and all budgets (Holm): "
        f"{', '.join(f'`{name}`' for name in config.tested)}.\n"
        f"- Arms: {', '.join(f'`{name}`' for name in config.arms)}; budgets: {', '.join(map(str, config.budgets))} tokens.\n"
        f"- {config.seeds} seeds, from {config.seed}; each arm is trained once a seed and budget, all from the same model, "
        f"{config.epochs:g} epochs at a learning rate of {config.lr:g}.\n"
        "- Primary endpoint: mean loss on the `test` split, in nats a token of the answers' own, paired by seed and row. Test: the largest of "
        "three p values: sign-flips over seeds and over rows, and Student's t over both. Interval: 95 %, over both.\n"
        f"- The least p that so many seeds can give to the best of the family, adjusted: {config.least_p:.2g}. Beaten is what has an adjusted p below {needed.level:g}.\n"
        f"- If evidence is made of it, it needs beside that: LDS of the labels at least {needed.lds:g} and surely above {_listed(needed.lds_rivals)}; retained LDS at "
        f"least {needed.retained:g}; AUROC at least {needed.auroc:g} and surely above {_listed(needed.controls)}, overall and within a source.\n"
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing else"
