"""The rows of the report of classify: which classifier sees what of the scored rows.

A control knows nothing of SAE features. Controls see numbers as they are and, through cubic splines of their ranks, any smooth
bend of them, so that none loses for want of a curve. Splines know the order of the values among all rows, and no label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from playpen.classifiers import CLASSIFIERS
from playpen.config import PlaypenError
from playpen.feature_table import Features, dense
from playpen.l2_classifier import BeyondColumns
from playpen.scored_rows import Fingerprints, read_scores, read_vectors
from playpen.tables import has_table

if TYPE_CHECKING:
    from playpen.stages.classify import Config

TO_BEAT = ("source_length", "source_length trees")
"""The controls that know where a row is from and how long it is; the verdict is against the stronger."""
KNOTS = 5
"""Knots of a spline, at even distances among the ranks."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One row of the report."""

    name: str
    """What tells it from the other rows."""
    model: str
    uses: str
    """`features`, `statistics` (of the features), `hidden` (states), `metadata` (source, length), `scores` or `vectors` (of another
    artifact), `features+metadata` or `hidden+metadata`."""
    classifier: Any
    sees: Features
    k: int | None = None
    """Features a row that it sees; None when that is no setting of its own."""
    fingerprints: Fingerprints | None = None
    """Where what it sees comes from; None for what needs no features artifact."""
    after: "Trial | None" = None
    """A row that sees the same and whose fit this one goes on from, so that it is made once."""

    @property
    def of_features(self) -> bool:
        """Whether it sees SAE features, and so is compared with every control."""
        return self.uses in ("features", "features+metadata")

    @property
    def can_predict(self) -> bool:
        """Whether predict can make all that it sees from tokens."""
        return self.uses in ("features", "statistics", "hidden") and self.fingerprints is not None and self.fingerprints.alone


def make_trials(config: "Config", rows: pd.DataFrame, sources: list[Fingerprints]) -> list[Trial]:
    """Return the controls, then each classifier with each K on each features artifact. `rows` are those of `read_scored_rows`."""
    found = [*metadata_trials(config, rows), *(t for name in config.controls for t in control_trials(config, name, rows))]
    names = [source.name for source in sources]
    unique = len(set(names)) == len(names)
    for source in sources:
        place = (source.name if unique else source.paths[0].name) if len(sources) > 1 else ""
        found += feature_trials(config, rows, source, place)
    taken = [trial.name for trial in found]
    for name in config.controls:
        if taken.count(name) > 1:
            raise PlaypenError(f"controls holds '{name}', which is a row of the report already; give it another name")
    return found


def metadata_trials(config: "Config", rows: pd.DataFrame) -> list[Trial]:
    """Return the controls that every row of data has: length, source, and both together in two ways."""
    length, source = log_lengths(rows), one_hot(rows["source"])
    both = np.concatenate([source, length], axis=1)
    return [
        Trial("length", "length", "metadata", config.l2, dense(bent_lengths(rows))),
        Trial("source", "source", "metadata", config.l2, dense(source)),
        Trial(TO_BEAT[0], "source_length", "metadata", config.l2, dense(source_length(rows))),
        Trial(TO_BEAT[1], "source_length_trees", "metadata", config.trees, dense(both)),
    ]


def control_trials(config: "Config", name: str, rows: pd.DataFrame) -> list[Trial]:
    """Return the rows of a control of the user's: its scores and, where it has them, its vectors."""
    path, found = config.controls[name], []
    if has_table(path, "scores") or not has_table(path, "vectors"):
        found.append(Trial(name, "scores", "scores", config.l2, dense(bends(read_scores(path, rows, f"controls.{name}")))))
    if has_table(path, "vectors"):
        vectors = dense(read_vectors(path, "vectors", rows))
        found.append(Trial(f"{name} vectors" if found else name, "vectors", "vectors", config.l2, vectors))
    return found


def feature_trials(config: "Config", rows: pd.DataFrame, source: Fingerprints, place: str) -> list[Trial]:
    """Return the rows of one features artifact; `place` ends their names."""

    def named(*words: str) -> str:
        return " ".join([*words, *([place] if place else [])])

    found, plain = [], source.features.without_columns()
    if source.hidden is not None:
        found.append(Trial(named("hidden"), "hidden", "hidden", config.l2, dense(source.hidden), None, source))
        found.append(Trial(named("hidden", "trees"), "hidden_trees", "hidden", config.trees, dense(source.hidden), None, source))
        both = dense(hidden_source_length(source.hidden, rows))
        uses, name = "hidden+metadata", named("hidden", "+", "source_length")
        found.append(Trial(name, "hidden_and_source_length", uses, config.l2, both, None, source))
    for model in config.models:
        for k in config.ks if CLASSIFIERS[model].uses_k else (None,):
            name = named(model, *([f"k{k}"] if k and len(config.ks) > 1 else []))
            uses, sees = ("statistics", dense(source.features.stats)) if model == "statistics" else ("features", plain)
            found.append(Trial(name, model, uses, getattr(config, model), sees.strongest(k) if k else sees, k, source))
    if "l2" in config.models:
        found += beside_source_length(config, rows, source, named)
    return found


def beside_source_length(config: "Config", rows: pd.DataFrame, source: Fingerprints, named: Callable[..., str]) -> list[Trial]:
    """Return what features know together with source and length, and what they know beyond them."""
    sees, beyond = source.features.with_columns(source_length(rows)), BeyondColumns(**vars(config.l2))
    uses, names = "features+metadata", (named("l2", word, "source_length") for word in ("+", "beyond"))
    both = Trial(next(names), "l2_and_source_length", uses, config.l2, sees, None, source)
    return [both, Trial(next(names), "l2_beyond_source_length", uses, beyond, sees, None, source, both)]


def log_lengths(rows: pd.DataFrame) -> np.ndarray:
    """Return the logarithms of tokens and of answer tokens, float32 [n, 2]."""
    return np.log1p(rows[["num_tokens", "num_labels"]].to_numpy(np.float32))


def one_hot(values: pd.Series) -> np.ndarray:
    """Return a column of 0 and 1 for each value: float32 [n, values]."""
    codes, names = pd.factorize(values.astype(str), sort=True)
    return np.eye(len(names), dtype=np.float32)[codes]


def source_length(rows: pd.DataFrame) -> np.ndarray:
    """Return all that source and length can say to a linear model: one-hot sources and `bent_lengths`."""
    return np.concatenate([one_hot(rows["source"]), bent_lengths(rows)], axis=1)


def bent_lengths(rows: pd.DataFrame) -> np.ndarray:
    """Return log lengths and splines of both, so that the middle may be best: float32 [n, 2 + 2 (KNOTS + 1)]."""
    length = log_lengths(rows)
    return np.concatenate([length, *(bends(length[:, i]) for i in range(2))], axis=1)


def hidden_source_length(hidden: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Return hidden states, and source and length as often as both sides take to be of one width.

    A column that stands there r times has the r-fold variance under an L2 penalty, so each side may move the logit as far as the
    other, as beside features.
    """
    columns = source_length(rows)
    return np.concatenate([hidden, np.tile(columns, (1, max(1, round(hidden.shape[1] / columns.shape[1]))))], axis=1)


def bends(values: np.ndarray) -> np.ndarray:
    """Return the cubic B-splines of the values' ranks but the first, equal values at their mean rank: float32 [n, KNOTS + 1]."""
    from scipy.stats import rankdata
    from sklearn.preprocessing import SplineTransformer

    rank = ((rankdata(values) - 0.5) / len(values))[:, None]
    knots: Any = np.linspace(0, 1, KNOTS)[:, None]
    return SplineTransformer(degree=3, knots=knots, include_bias=False).fit_transform(rank).astype(np.float32)
