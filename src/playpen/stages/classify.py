"""Learn to predict attribution from fingerprints, and report how far that goes beyond source and length.

    playpen classify --features runs/demo/features --scores runs/demo/scores --data runs/demo/data --ks 64 256

Every row is predicted once, by a model that saw neither it nor a near-duplicate of it (grouped cross-validation). One row of
the table `report` for each control (length, source, both together, hidden states, other scores) and each classifier of SAE
features: AUROC, Spearman, the same within a source and within source and length, accuracy and calibration, with 95 %
intervals. The table `differences` has the features minus each control on the same samples. A run on shuffled labels must end
at 0.5. The best row of features alone is fitted again on all rows and saved for predict. With `per_query` the score for each query
is learnt beside it, by ridge regression on what that row sees, so that predictions can take turns over the queries.
"""

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from tyro.conf import Suppress

from playpen.classifiers import CLASSIFIERS, AttentionPooling, L1Logistic, L2Logistic, MeanPooling, Statistics, Trees
from playpen.config import Input, PlaypenError, config
from playpen.query_regression import QueryRidge

if TYPE_CHECKING:
    from playpen.cross_validation import Fit
    from playpen.machine import Machine
    from playpen.scored_rows import Fingerprints
    from playpen.trials import Trial

VERSION = 3
FEWEST = 20
"""Rows of each class without which nothing is learnt or told."""


@config
class Top:
    """The label is 1 for the rows of the highest scores and 0 for the rest; the prediction is the probability of 1."""

    kind: Suppress[Literal["top"]] = "top"
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of rows called 1; a quarter by default."""

    def target(self, score: np.ndarray) -> np.ndarray:
        """Return what is learnt, float32 [n] in [0, 1]."""
        return top_label(score, self.quantile).astype(np.float32)


@config
class Rank:
    """What is learnt and predicted is the rank of the score, from 0 for the lowest to 1 for the highest."""

    kind: Suppress[Literal["rank"]] = "rank"
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of rows that AUROC and accuracy count as positive; nothing is learnt from it."""

    def target(self, score: np.ndarray) -> np.ndarray:
        """Return what is learnt, float32 [n] in [0, 1]."""
        from scipy.stats import rankdata

        return ((rankdata(score) - 1) / max(len(score) - 1, 1)).astype(np.float32)


@config
class Value:
    """What is learnt and predicted is the score itself, its tails cut, from 0 for the lowest to 1 for the highest.

    Sums of such predictions are sums of expected scores, as of rows that are trained on together; ranks and tops lose what far better rows are worth.
    """

    kind: Suppress[Literal["value"]] = "value"
    cut: Annotated[float, Field(ge=0, lt=0.25)] = 0.005
    """Share of the rows at either end whose scores are cut to that of the next; 0 cuts none, and lets one row set the scale."""
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of rows that AUROC and accuracy count as positive; nothing is learnt from it."""

    def target(self, score: np.ndarray) -> np.ndarray:
        """Return what is learnt, float32 [n] in [0, 1]."""
        low, high = np.quantile(score, [self.cut, 1 - self.cut])
        if low == high:
            raise PlaypenError(
                f"label: the middle {1 - 2 * self.cut:.1%} of the scores are all {low}; lower cut, or learn another label"
            )
        return ((np.clip(score, low, high) - low) / (high - low)).astype(np.float32)


@config
class Config:
    """Which attribution would an example get? Learnt from its fingerprint."""

    features: Annotated[tuple[Input, ...], Field(min_length=1)]
    """Fingerprints of the scored rows, of fingerprint; several (layers, SAEs) are compared in one report."""
    scores: Input
    """The attribution to learn, of attribute."""
    data: Input
    """The data, of build-data, whose pool was scored; gives groups, sources and lengths."""
    join: bool = False
    """Try several fingerprints side by side as well, as if they were one; predict cannot use that row."""
    controls: dict[str, Input] = field(default_factory=dict)
    """Artifacts to beat, by name: their `scores`, and their `vectors` (of sentence embeddings, say) where they have them."""
    label: Annotated[Top | Rank | Value, Field(discriminator="kind")] = Top()
    """What is learnt from the scores."""
    models: tuple[Literal["statistics", "l1", "l2", "trees", "mean_pooling", "attention_pooling"], ...] = (
        "statistics",
        "l1",
        "l2",
        "trees",
        "mean_pooling",
        "attention_pooling",
    )
    """Classifiers of features to compare; length, source and both together are always there."""
    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256,)
    """How many of the strongest features the pooled classifiers see; each K is tried. At most the k of the fingerprints."""
    save: str | None = None
    """Row of the report to save for predict; when left out, the best of those that use features and nothing else."""
    per_query: bool = False
    """Learn the score for each query as well, so that predict can write it and round_robin take turns; `scores` must hold them."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Parts of the cross-validation; more leave more rows to learn from and take longer."""
    shuffles: NonNegativeInt = 5
    """Runs of all folds on shuffled labels, whose mean AUROC must be 0.5; 0 leaves them out, more narrow the interval."""
    seed: int = 0
    """Seed of folds, networks, shuffles and bootstrap."""
    bootstrap: PositiveInt = 1000
    """Samples of groups behind each interval."""
    statistics: Statistics = Statistics()
    """Settings of the ten global statistics."""
    l1: L1Logistic = L1Logistic()
    """Settings of the L1 logistic regression."""
    l2: L2Logistic = L2Logistic()
    """Settings of the L2 logistic regression, also of the controls'."""
    trees: Trees = Trees()
    """Settings of gradient-boosted trees, also of the control's."""
    mean_pooling: MeanPooling = MeanPooling()
    """Settings of mean pooling."""
    attention_pooling: AttentionPooling = AttentionPooling()
    """Settings of attention pooling."""
    ridge: QueryRidge = QueryRidge()
    """Settings of what `per_query` learns."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if not self.models:
            raise ValueError(f"models is empty; known: {', '.join(CLASSIFIERS)}")
        for name in ("features", "models", "ks"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} holds something twice")
        if self.join and len(self.features) < 2:
            raise ValueError("join needs several features artifacts")
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the tables `report`, `differences` and `heldout`, the directory `classifier/` and `metrics.json`."""
    from playpen import classifier_report as reporting
    from playpen.cross_validation import predict_held_out
    from playpen.folds import grouped_folds
    from playpen.query_scores import read_query_scores
    from playpen.scored_rows import read_scored_rows
    from playpen.tables import write_table
    from playpen.threads import one_thread
    from playpen.trials import make_trials

    rows = read_scored_rows(config.scores, config.data)
    rows["label"] = top_label(rows["score"].to_numpy(), config.label.quantile).astype(np.int8)
    target, group = config.label.target(rows["score"].to_numpy()), rows["group"].to_numpy()
    check_classes(rows, config.scores)
    query_scores = read_query_scores(config.scores, rows, "per_query").astype(np.float64) if config.per_query else None
    trials = make_trials(config, rows, read_sources(config, rows))
    reporting.check_save(trials, config.save)
    rows["fold"] = folds = grouped_folds(target, group, config.folds, config.seed)
    fits: list[Fit] = [*((trial, None) for trial in trials), *shuffled_fits(config, trials)]
    predicted = predict_held_out(fits, target, group, folds, config.seed)
    predictions = {trial: made for (trial, shuffle), made in predicted.items() if shuffle is None}
    with one_thread():
        samples = reporting.sample(predictions, rows, target, config.seed, config.bootstrap)
        by = "auroc" if isinstance(config.label, Top) else "spearman"
        best, saved = reporting.choose(samples, by, config.save)
        shuffled = shuffled_metrics(predicted, rows["label"].to_numpy(), folds)
        report = reporting.with_shuffled(reporting.report_table(samples, best), shuffled)
        write_table(out / "report.parquet", report)
        write_table(out / "differences.parquet", reporting.differences_table(samples))
        write_table(out / "heldout.parquet", reporting.held_out_table(rows, predictions))
        fit_and_save(config, saved, rows, target, out / "classifier")
        each = {} if query_scores is None else {"per_query": learn_queries(config, saved, rows, query_scores, out)}
    verdicts = reporting.verdicts(samples, best, by)
    write_metrics(out, config, rows, report, {"best": best.name, "saved": saved.name, "shuffled": shuffled, **verdicts, **each})


def top_label(score: np.ndarray, quantile: float) -> np.ndarray:
    """Return which rows are the round(quantile * n) highest; ties go to the earlier row."""
    label = np.zeros(len(score), bool)
    label[np.argsort(-score, kind="stable")[: round(quantile * len(score))]] = True
    return label


def check_classes(rows: pd.DataFrame, scores: str) -> None:
    """Raise when the scores are all one, or a class has too few rows to learn from."""
    up, down = int((rows["label"] == 1).sum()), int((rows["label"] == 0).sum())
    if rows["score"].nunique() == 1:
        raise PlaypenError(f"{scores}: all {len(rows)} scores are {rows['score'].iloc[0]}; there is nothing to learn")
    if min(up, down) < FEWEST:
        raise PlaypenError(
            f"{scores}: {up} rows are in the top and {down} are not; at least {FEWEST} of each are needed: score more rows"
        )


def read_sources(config: Config, rows: pd.DataFrame) -> "list[Fingerprints]":
    """Read every features artifact and, when they are to be joined, put them side by side as well."""
    from playpen.scored_rows import joined, read_fingerprints

    sources = [read_fingerprints(path, rows, f"scores {config.scores}") for path in config.features]
    check_ks(config, sources)
    return [*sources, joined(sources)] if config.join else sources


def check_ks(config: Config, sources: "list[Fingerprints]") -> None:
    """Raise when a pooled classifier is to see more features than are stored."""
    for source in sources if any(CLASSIFIERS[model].uses_k for model in config.models) else []:
        if max(config.ks) > source.info["k"]:
            raise PlaypenError(
                f"ks asks for {max(config.ks)} features a row, but {source.paths[0]} holds {source.info['k']}; "
                "lower ks, or fingerprint with a larger k"
            )


def shuffled_fits(config: Config, trials: "list[Trial]") -> "list[Fit]":
    """Return the runs on shuffled labels: of the quickest model of features that is compared."""
    order = ("l2", "l1", "trees", "mean_pooling", "attention_pooling", "statistics")
    of_features = [trial for trial in trials if trial.model in order]
    trial = min(of_features, key=lambda each: order.index(each.model))
    return [(trial, shuffle) for shuffle in range(config.shuffles)]


def shuffled_metrics(predicted: "dict[Fit, np.ndarray]", label: np.ndarray, folds: np.ndarray) -> dict[str, Any] | None:
    """Return the mean AUROC on shuffled labels over runs and folds, and its interval by Student's t; None without runs.

    Each fold of each run learns another random direction, which may lie along whatever the label depends on. So the spread
    over them, not that over rows, says how far from 0.5 chance may lead.
    """
    from scipy.special import stdtrit

    from playpen.intervals import estimate
    from playpen.prediction_metrics import auroc

    made = {fit: prediction for fit, prediction in predicted.items() if fit[1] is not None}
    if not made:
        return None
    parts = [(folds == fold, prediction) for prediction in made.values() for fold in np.unique(folds)]
    values = np.array([estimate(int(held.sum()), auroc(label[held], prediction[held])) for held, prediction in parts])
    values = values[np.isfinite(values)]
    middle = float(values.mean())
    reach = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5)
    found: dict[str, Any] = {"model": next(iter(made))[0].name, "folds": values.tolist(), "auroc": middle}
    return {**found, "auroc_low": middle - reach, "auroc_high": middle + reach, "holds_half": abs(middle - 0.5) <= reach}


def fit_and_save(config: Config, chosen: "Trial", rows: pd.DataFrame, target: np.ndarray, where: Path) -> None:
    """Fit a classifier on all rows and write it."""
    from playpen import artifact
    from playpen.config import to_plain
    from playpen.saved_classifier import save_classifier

    assert chosen.fingerprints is not None
    arrays = chosen.classifier.fit(chosen.sees, target, rows["group"].to_numpy(), config.seed)
    info = {
        "name": chosen.name,
        "model": next(name for name, kind in CLASSIFIERS.items() if type(chosen.classifier) is kind),
        "uses": chosen.uses,
        "k": chosen.k,
        "settings": to_plain(chosen.classifier),
        "label": to_plain(config.label),
        "features": artifact.read_manifest(chosen.fingerprints.paths[0])["fingerprint"],
        "fingerprint": chosen.fingerprints.info,
        "rows": len(rows),
        "seed": config.seed,
    }
    save_classifier(where, info, arrays)


def learn_queries(config: Config, saved: "Trial", rows: pd.DataFrame, scores: np.ndarray, out: Path) -> dict[str, Any]:
    """Learn the score for each query from what the saved row sees; write it and the tables; return how well it ranks."""
    from playpen.query_regression import predict_held_out, report
    from playpen.query_scores import queries_of, write_query_scores
    from playpen.saved_classifier import save_queries
    from playpen.tables import write_table

    each = predict_held_out(config.ridge, saved, scores, rows, config.seed)
    table, numbers = report(scores, each, rows["fold"].to_numpy())
    write_table(out / "query_report.parquet", table)
    write_query_scores(rows["row_id"], each, out / "heldout_queries.parquet")
    arrays = config.ridge.fit(saved.sees, scores, rows["group"].to_numpy(), config.seed)
    save_queries(out / "classifier", arrays, queries_of(config.scores))
    return numbers


def write_metrics(out: Path, config: Config, rows: pd.DataFrame, report: pd.DataFrame, found: dict[str, Any]) -> None:
    """Write the report as JSON, with what was learnt from what and the verdict."""
    from playpen.tables import write_json

    plain = report.astype(object).where(report.notna(), None)
    models = {row.pop("name"): row for row in plain.to_dict("records")}
    counts = {"rows": len(rows), "groups": int(rows["group"].nunique()), "positives": int(rows["label"].sum())}
    write_json(out / "metrics.json", {**found, "models": models, "folds": config.folds, "label": config.label.kind, **counts})
