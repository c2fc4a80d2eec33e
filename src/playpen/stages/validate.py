"""Judge scores by what training really does: LDS, removal of the top rows, recall of planted rows.

Question: do these scores predict which training rows lower the target loss, better than chance and length do?

    playpen validate --data runs/demo/data --scores labels runs/demo/scores --banks runs/mine/retrain --reference labels

Any number of scorers is judged by the same bank of retrainings (`retrain`), with the same bootstrap samples:

- LDS, the linear datamodeling score: Spearman over subsets of the summed scores of the rows trained on against minus the
  target loss (Park et al. 2023, arXiv 2303.14186, section 2), of a `keep-half` or `leave-out` bank.
- Retained LDS: that of each scorer over that of `reference`, such as predictions over the labels they were learnt from; and how
  far each is behind it, paired.
- Ceiling: the LDS that one half of the bank's seeds has of the other half.
- QLD, of a `drop` bank: the target loss without the top rows minus that without random ones.
- With `truth`, on a world: recall and AUPRC of the helpful rows, and the detection AUROC of each kind of fault.

Two controls are in every table: random scores, and the length of the answer. Writes the tables `lds`, `tails` and `recall`
(each where there is something to tell), `metrics.json` and all of it as text in `validation.md`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveInt, model_validator

from playpen.banks import Bank, read_bank, top_rows
from playpen.config import Input, PlaypenError, config, did_you_mean
from playpen.query_scores import NAME, read_query_scores
from playpen.tables import check_row_ids, has_table, read_table, read_truth, write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 2
RESERVED = ("random", "length", "ceiling", "retained")
"""Names that the tables use themselves."""


@config
class Config:
    """Do these scores predict what training does?"""

    data: Input
    """Artifact of build-data whose rows were scored."""
    split: Literal["pool", "train", "large_pool"] = "pool"
    """The rows; every scorer must cover all of them."""
    scores: Annotated[dict[str, Input], Field(min_length=1)]
    """Scores by the name that tables will call them: artifacts of attribute, score or predict."""
    banks: tuple[Input, ...] = ()
    """Artifacts of retrain from the same rows, at most one of each form."""
    reference: str | None = None
    """Name of the scores whose LDS the others are held against: the labels that predictions were learnt from."""
    truth: bool = False
    """Compare with the planted truth of a world as well."""
    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (50, 100, 200)
    """Sizes of the top whose recall of helpful rows is told."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Samples behind each interval; more make its last digit steadier."""
    seed: int = 0
    """Seed of the random scores and of the bootstrap."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if taken := sorted(set(RESERVED) & set(self.scores)):
            raise ValueError(f"scores may not be called '{taken[0]}': the tables use {', '.join(RESERVED)} themselves")
        if self.reference is not None and self.reference not in self.scores:
            raise ValueError(f"reference '{self.reference}' names no scores{did_you_mean(self.reference, list(self.scores))}")
        if not self.banks and not self.truth:
            raise ValueError("nothing to judge by: name banks of retrain, or set truth on a world")
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Judge all scorers, then write tables, numbers and text."""
    from playpen.tail_removal import tail_table
    from playpen.validation_page import metrics, page

    rows, banks = read_rows(config), read_banks(config)
    scores, tables = read_scores(config, rows), {}
    if lds := [lds_of_bank(config, bank, rows, scores) for bank in banks.values() if bank.form != "drop"]:
        tables["lds"] = pd.concat(lds, ignore_index=True)
    if "drop" in banks:
        check_removed(banks["drop"], scores.iloc[places_in(banks["drop"], rows, config)])
        tables["tails"] = tail_table(banks["drop"])
    if config.truth:
        tables["recall"] = recall(config, rows, scores)
    for name, table in tables.items():
        write_table(out / f"{name}.parquet", table)
    write_json(out / "metrics.json", {"rows": len(rows), "reference": config.reference, **metrics(tables)})
    (out / "validation.md").write_text(page(tables, config.reference, len(rows)))


def read_rows(config: Config) -> pd.DataFrame:
    """Return row_id, num_labels and group of every row, by ascending row_id."""
    rows = read_table(config.data, config.split, ["row_id", "num_labels", "group"])
    check_row_ids(rows, f"{config.split} of {config.data}")
    return rows.sort_values("row_id", ignore_index=True)


def read_scores(config: Config, rows: pd.DataFrame) -> pd.DataFrame:
    """Return one float64 column a scorer in the order of `rows`, the controls last."""
    from playpen import scored_rows

    found = {name: scored_rows.read_scores(path, rows, f"validate: scores.{name}") for name, path in config.scores.items()}
    controls = {"random": np.random.default_rng([config.seed, 0]).random(len(rows)), "length": rows["num_labels"].to_numpy(float)}
    return pd.DataFrame({**found, **controls})


def read_banks(config: Config) -> dict[str, Bank]:
    """Return the banks by their form."""
    found: dict[str, Bank] = {}
    for path in config.banks:
        bank = read_bank(path)
        if bank.form in found:
            raise PlaypenError(
                f"validate: {found[bank.form].path} and {path} are both of the form {bank.form}; leave one of them out"
            )
        found[bank.form] = bank
    return found


def places_in(bank: Bank, rows: pd.DataFrame, config: Config) -> np.ndarray:
    """Return the place in `rows` of each row of the bank."""
    place = pd.Index(rows["row_id"]).get_indexer(pd.Index(bank.row_ids))
    if (place < 0).any():
        raise PlaypenError(
            f"validate: the bank {bank.path} was trained on {int((place < 0).sum())} rows that {config.split} of {config.data} lacks, "
            f"the first is row_id {bank.row_ids[place < 0][0]}; was it made from other data?"
        )
    return place


def lds_of_bank(config: Config, bank: Bank, rows: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the LDS of every scorer by one bank, the columns of `lds.lds_table`."""
    from playpen.lds import lds_table

    place, subsets = places_in(bank, rows, config), bank.places("drawn")
    offered = {name: per_target_scores(path, bank, rows, config) for name, path in config.scores.items()}
    each = {name: found for name, found in offered.items() if found is not None}
    columns = {name: scores[name].to_numpy() for name in scores.columns} | each
    kept = np.stack([bank.designs[i].kept for i in subsets]).astype(float)
    summed = {name: kept @ values[place] for name, values in columns.items()}
    table = lds_table(summed, bank.losses[subsets], config.reference, config.bootstrap, config.seed)
    return table.assign(form=bank.form, per_query=table["scores"].isin(list(each)))


def per_target_scores(path: str, bank: Bank, rows: pd.DataFrame, config: Config) -> np.ndarray | None:
    """Return float64 [rows, targets], or None where the scores tell no target from another or the bank measured other targets.

    They come from the table `query_scores` (row_id, scores: one a row of the `query` split, in its order).
    """
    if not has_table(path, NAME):
        return None
    queries = pd.Index(read_table(config.data, "query", ["row_id"])["row_id"])
    column = queries.get_indexer(pd.Index(bank.targets))
    if (column < 0).any():
        return None
    scores = read_query_scores(path, rows, "validate")
    if scores.shape[1] != len(queries):
        raise PlaypenError(f"validate: {path}: query_scores should hold {len(queries)} scores a row, one for each row of query")
    return scores.astype(float)[:, column]


def check_removed(bank: Bank, scores: pd.DataFrame) -> None:
    """Raise when a bank left out the top of other scores than those of the same name here; `scores` has the bank's rows."""
    for design in bank.designs:
        if design.kind == "top" and design.scores in scores.columns:
            top = top_rows(bank.row_ids, scores[design.scores].to_numpy(), int((~design.kept).sum()))
            if (top == design.kept).any():
                raise PlaypenError(
                    f"validate: the bank {bank.path} left out other rows than the top of scores.{design.scores}; "
                    "give the scores that it was made from, or another name"
                )


def recall(config: Config, rows: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return how well each scorer finds the helpful rows and the faulty ones, the columns of `planted_truth.recall_table`."""
    from playpen.planted_truth import recall_table, with_truth

    truth = read_truth(config.data)
    if truth is None:
        raise PlaypenError(f"validate: {config.data} has no planted truth, only data of a world has; set truth to false")
    tasks = sorted(set(read_table(config.data, "query", ["task"])["task"]))
    known = with_truth(rows, truth, tasks, f"validate: {config.split} of {config.data}")
    ks = sorted({min(k, len(rows)) for k in config.ks})
    return recall_table(scores, known, ks, config.bootstrap, config.seed)
