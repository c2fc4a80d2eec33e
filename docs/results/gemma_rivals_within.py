"""Print how well each predictor of gemma-rivals orders rows of like answers, and the ShareGPT chats alone.

python docs/results/gemma_rivals_within.py runs/gemma-rivals
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

BINS = (0, 4, 8, 30, 100_000)
SHOWN = ("l1", "hidden", "source_length", "length", "bm25", "statistics")
STRUCTURE = "lengths and turns, fitted on the chats"


def main(root: str) -> None:
    """Read the held-out predictions of the entry `predictors` and print the two tables."""
    table = heldout(Path(root))
    for answer, rows in table.groupby(pd.cut(table["num_labels"], BINS), observed=True):
        told = {name: round(within(rows[rows["model"] == name]), 3) for name in SHOWN[:3]}
        one = rows[rows["model"] == SHOWN[0]]
        print(f"labels {answer}: {len(one)} rows, {one['label'].mean():.0%} in the top quarter, {told}")
    chats = table[table["source"] == "sharegpt"]
    for name, (value, low, high) in alone(pd.concat([chats, structure(chats)])).items():
        print(f"{name:24} AUROC {value:+.3f} ({low:+.3f} to {high:+.3f})")


def heldout(root: Path) -> pd.DataFrame:
    """Return row_id, model, fold, label, score, prediction, source, tokens, num_labels (those that end a turn included) and turns."""
    (file,) = root.glob("predictors-*/heldout.parquet")
    (pool,) = root.glob("data-*/pool.parquet")
    rows = pd.read_parquet(pool, columns=["row_id", "source", "num_tokens", "num_labels", "messages"])
    return pd.read_parquet(file).merge(rows.assign(turns=rows.pop("messages").map(len)), on="row_id")


def structure(chats: pd.DataFrame) -> pd.DataFrame:
    """Return held-out predictions of a control that the report lacks: what the form of a chat tells of the top quarter of the chats.

    A logistic regression on splines of both log lengths and on the number of turns, in the same folds; it sees chats alone, so that
    no other source bends its curves.
    """
    rows = chats.drop_duplicates("row_id").assign(model=STRUCTURE, prediction=0.0).reset_index(drop=True)
    bends = SplineTransformer(n_knots=5, knots="quantile").fit_transform(np.log1p(rows[["num_tokens", "num_labels"]]))
    sees = np.concatenate([bends, np.log1p(rows[["turns"]]), pd.get_dummies(rows["turns"].clip(upper=9)).astype(float)], axis=1)
    top = (rows["score"] >= rows["score"].quantile(0.75)).to_numpy()
    for fold in rows["fold"].unique():
        out = (rows["fold"] == fold).to_numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        rows.loc[out, "prediction"] = model.fit(sees[~out], top[~out]).decision_function(sees[out])
    return rows


def within(rows: pd.DataFrame) -> float:
    """Return the mean Spearman within source and fold, weighted by rows; strata of 20 rows or fewer are left out."""
    parts = [part for _, part in rows.groupby(["source", "fold"]) if len(part) > 20]
    return float(np.average([spearmanr(p["prediction"], p["score"])[0] for p in parts], weights=[len(p) for p in parts]))


def alone(rows: pd.DataFrame, draws: int = 1000) -> dict[str, tuple[float, float, float]]:
    """Return AUROC (top quarter of these rows) of each predictor and of differences, with 95 % intervals over rows."""
    made = rows.pivot(index="row_id", columns="model", values="prediction")
    score = rows.groupby("row_id")["score"].first().loc[made.index]
    top, rng = (score >= score.quantile(0.75)).to_numpy(), np.random.default_rng(0)
    drawn = [np.arange(len(made)), *(rng.integers(0, len(made), len(made)) for _ in range(draws))]
    found = {name: np.array([roc_auc_score(top[i], made[name].to_numpy()[i]) for i in drawn]) for name in (*SHOWN, STRUCTURE)}
    found |= {f"l1 - {name}": found["l1"] - found[name] for name in ("source_length", "hidden", STRUCTURE)}
    return {name: (v[0], *np.quantile(v[1:], (0.025, 0.975))) for name, v in found.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
