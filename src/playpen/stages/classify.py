"""Learn to predict attribution from fingerprints, and report how well it goes on held-out rows.

    playpen classify --features runs/demo/features --scores runs/demo/scores --data runs/demo/data --ks 64 256

Every row is predicted once, by a model that saw neither it nor a near-duplicate of it (grouped cross-validation). One row of
the table `report` for each classifier, K and features artifact: AUROC, accuracy, Spearman, the same within a source, and
calibration, with 95 % intervals. `length` is a reference: a logistic regression on the logarithms of the numbers of tokens, for
the number of active features grows with length. The best classifier is fitted again on all rows and saved.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveInt, model_validator
from tyro.conf import Suppress

from playpen.classifiers import CLASSIFIERS, AttentionPooling, L1Logistic, MeanPooling, Statistics
from playpen.config import Input, PlaypenError, config

if TYPE_CHECKING:
    from playpen.classifier_report import Trial
    from playpen.feature_table import Features
    from playpen.machine import Machine
    from playpen.scored_rows import Fingerprints

VERSION = 1
FEWEST = 20
"""Rows of each class without which nothing is learnt or told."""
MOST_THREADS = 8
"""Folds worked on at a time, as far as there are cores; each holds a copy of its training rows."""


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
class Config:
    """Which attribution would an example get? Learnt from its fingerprint."""

    features: Annotated[tuple[Input, ...], Field(min_length=1)]
    """Fingerprints of the scored rows, of fingerprint; several (layers, SAEs) are compared in one report."""
    scores: Input
    """The attribution to learn, of attribute."""
    data: Input
    """The data, of build-data, whose pool was scored; gives groups, sources and lengths."""
    label: Annotated[Top | Rank, Field(discriminator="kind")] = Top()
    """What is learnt from the scores."""
    models: tuple[Literal["statistics", "l1", "mean_pooling", "attention_pooling"], ...] = (
        "statistics",
        "l1",
        "mean_pooling",
        "attention_pooling",
    )
    """Classifiers to compare; the length reference is always there."""
    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256,)
    """How many of the strongest features the pooled classifiers see; each K is tried. At most the k of the fingerprints."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Parts of the cross-validation; more leave more rows to learn from and take longer."""
    seed: int = 0
    """Seed of folds, networks and bootstrap."""
    bootstrap: PositiveInt = 1000
    """Samples of groups behind each interval."""
    statistics: Statistics = Statistics()
    """Settings of the ten global statistics."""
    l1: L1Logistic = L1Logistic()
    """Settings of the L1 logistic regression."""
    mean_pooling: MeanPooling = MeanPooling()
    """Settings of mean pooling."""
    attention_pooling: AttentionPooling = AttentionPooling()
    """Settings of attention pooling."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if not self.models:
            raise ValueError(f"models is empty; known: {', '.join(CLASSIFIERS)}")
        for name in ("features", "models", "ks"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} holds something twice")
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the tables `report` and `heldout`, the directory `classifier/` and `metrics.json`."""
    from playpen.classifier_report import held_out_table, make_report
    from playpen.folds import grouped_folds
    from playpen.scored_rows import read_fingerprints, read_scored_rows
    from playpen.tables import write_table

    rows = read_scored_rows(config.scores, config.data)
    rows["label"] = top_label(rows["score"].to_numpy(), config.label.quantile).astype(np.int8)
    target = config.label.target(rows["score"].to_numpy())
    check_classes(rows, config.scores)
    sources = [read_fingerprints(path, rows, f"scores {config.scores}") for path in config.features]
    check_ks(config, sources)
    folds = grouped_folds(target, rows["group"].to_numpy(), config.folds, config.seed)
    predictions = predict_held_out(config, trials(config, sources), rows, target, folds)
    by = "auroc" if isinstance(config.label, Top) else "spearman"
    report, best = make_report(predictions, rows, target, by, config.seed, config.bootstrap)
    write_table(out / "report.parquet", report)
    write_table(out / "heldout.parquet", held_out_table(rows, predictions))
    fit_and_save(config, best, rows, target, out / "classifier")
    write_metrics(out, config, rows, report, best.name)


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


def check_ks(config: Config, sources: "list[Fingerprints]") -> None:
    """Raise when a pooled classifier is to see more features than are stored."""
    for source in sources if any(CLASSIFIERS[model].uses_k for model in config.models) else []:
        if max(config.ks) > source.info["k"]:
            raise PlaypenError(
                f"ks asks for {max(config.ks)} features a row, but {source.path} holds {source.info['k']}; "
                "lower ks, or fingerprint with a larger k"
            )


def trials(config: Config, sources: "list[Fingerprints]") -> "list[Trial]":
    """Return the rows of the report: the length reference, then each classifier with each K on each features artifact."""
    from playpen.classifier_report import LENGTH, Trial

    names = [source.name for source in sources]
    names = names if len(set(names)) == len(names) else [source.path.name for source in sources]
    found = [Trial(LENGTH, LENGTH, None, None)]
    for source, place in zip(sources, names, strict=True):
        for model in config.models:
            for k in config.ks if CLASSIFIERS[model].uses_k else (None,):
                many = [f"k{k}"] if k and len(config.ks) > 1 else []
                name = " ".join([model, *many, *([place] if len(sources) > 1 else [])])
                found.append(Trial(name, model, k, source))
    return found


def inputs_of_trial(config: Config, trial: "Trial", rows: pd.DataFrame) -> tuple[Any, "Features"]:
    """Return the classifier of a trial and what it sees."""
    from playpen.feature_table import dense

    if trial.fingerprints is None:
        return Statistics(), dense(np.log1p(rows[["num_tokens", "num_labels"]].to_numpy(np.float32)))
    features = trial.fingerprints.features
    return getattr(config, trial.model), features.strongest(trial.k) if trial.k else features


def predict_held_out(
    config: Config, todo: "list[Trial]", rows: pd.DataFrame, target: np.ndarray, folds: np.ndarray
) -> "dict[Trial, np.ndarray]":
    """Return each trial's predictions, float32 [n], each made without the row's fold; folds are worked on side by side."""
    from tqdm import tqdm

    from playpen.pooled_classifier import one_thread

    group, predictions = rows["group"].to_numpy(), {trial: np.empty(len(rows), np.float32) for trial in todo}

    def predict_fold(job: "tuple[Trial, int]") -> np.ndarray:
        classifier, features = inputs_of_trial(config, job[0], rows)
        train, held = np.flatnonzero(folds != job[1]), np.flatnonzero(folds == job[1])
        arrays = classifier.fit(features.rows(train), target[train], group[train], config.seed)
        return classifier.predict(arrays, features.rows(held))

    jobs = [(trial, fold) for trial in todo for fold in range(config.folds)]
    with one_thread(), ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        try:
            made = pool.map(predict_fold, jobs)
            for (trial, fold), part in tqdm(
                zip(jobs, made, strict=True), "classify", len(jobs), unit="fit", disable=None, mininterval=1
            ):
                predictions[trial][folds == fold] = part
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, do not work on
    return predictions


def fit_and_save(config: Config, best: "Trial", rows: pd.DataFrame, target: np.ndarray, where: Path) -> None:
    """Fit the best classifier on all rows and write it."""
    from playpen import artifact
    from playpen.config import to_plain
    from playpen.saved_classifier import save_classifier

    assert best.fingerprints is not None
    classifier, features = inputs_of_trial(config, best, rows)
    arrays = classifier.fit(features, target, rows["group"].to_numpy(), config.seed)
    info = {
        "name": best.name,
        "model": best.model,
        "k": best.k,
        "settings": to_plain(classifier),
        "label": to_plain(config.label),
        "features": artifact.read_manifest(best.fingerprints.path)["fingerprint"],
        "fingerprint": best.fingerprints.info,
        "rows": len(rows),
        "seed": config.seed,
    }
    save_classifier(where, info, arrays)


def write_metrics(out: Path, config: Config, rows: pd.DataFrame, report: pd.DataFrame, best: str) -> None:
    """Write the report as JSON, with what was learnt from what."""
    from playpen.tables import write_json

    plain = report.astype(object).where(report.notna(), None)
    models = {row.pop("name"): row for row in plain.to_dict("records")}
    counts = {"rows": len(rows), "groups": int(rows["group"].nunique()), "positives": int(rows["label"].sum())}
    write_json(
        out / "metrics.json", {"best": best, "models": models, "folds": config.folds, "label": config.label.kind, **counts}
    )
