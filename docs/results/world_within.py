"""Print how far the classifier of `world` is ahead of each control in AUROC within a source, on the same bootstrap samples.

python docs/results/world_within.py runs/world
"""

import sys

import numpy as np

from playpen.artifact import find_artifact
from playpen.intervals import estimate, interval, resample
from playpen.prediction_metrics import ranking, strata_of
from playpen.tables import join, read_table

MODEL = "attention_pooling"


def main(root: str, draws: int = 1000) -> None:
    """Read the held-out predictions of the entry `classifier` and print a line a row of its report."""
    heldout = read_table(find_artifact(f"{root}/classifier"), "heldout")
    pool = read_table(find_artifact(f"{root}/data"), "pool", ["row_id", "source", "group", "num_tokens", "num_labels"])
    made = heldout.pivot(index="row_id", columns="model", values="prediction")
    rows = join(heldout[heldout["model"] == MODEL].set_index("row_id").loc[made.index].reset_index(), pool, "pool")
    within = ranking(
        rows["label"].to_numpy(), rows["score"].to_numpy(), [made[name].to_numpy() for name in made], strata_of(rows)[1]
    )
    point, samples = estimate(len(rows), within)[:, 0], resample(rows["group"].to_numpy(), within, draws, 0)[:, :, 0]
    own = list(made).index(MODEL)
    for i in np.argsort(-point):
        low, high = interval(samples[:, own] - samples[:, i])
        print(f"| {made.columns[i]} | {point[i]:.3f} | {point[own] - point[i]:+.3f} | {low:+.3f} to {high:+.3f} |")


if __name__ == "__main__":
    main(sys.argv[1])
