"""Print the tables of open-questions.md from what the presets have made.

python docs/results/open_questions.py runs/demo sae-layer
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from playpen.artifact import find_artifact
from playpen.comparison import matrix
from playpen.paired import paired_effect

DRAWS = 1000
Columns = dict[str, np.ndarray]


def main(root: str, question: str) -> None:
    """Print the tables of one question."""
    QUESTIONS[question](Path(root))


def sae_layer(root: Path) -> None:
    """Print AUROC and Spearman of each layer's features and hidden states, held out, and the differences that matter."""
    held = table(root, "layers", "heldout")
    made = held.pivot(index="row_id", columns="model", values="prediction")
    score = held.groupby("row_id")["score"].first().loc[made.index].to_numpy()
    of = {f"layer {layer}": f"features{'' if layer == 2 else f'_{layer}'}" for layer in range(4)}
    joined = next(name for name in made if name.startswith("l2 features_0 + features_1"))
    found = {name: made["l2 " + entry] for name, entry in of.items()} | {"all four": made[joined]}
    found |= {f"hidden {name}": made["hidden " + entry] for name, entry in of.items()} | {
        "hidden all four": made["hidden" + joined[2:]]
    }
    found |= {name: made[name] for name in ("source_length", "source_length trees", "length")}
    pairs = [(name, f"hidden {name}") for name in (*of, "all four")] + [(name, "source_length") for name in (*of, "all four")]
    pairs += [(name, "layer 2") for name in (*of, "all four") if name != "layer 2"]
    order(score, {name: column.to_numpy() for name, column in found.items()}, pairs)


def pool_size(root: Path) -> None:
    """Print how predictions from ever more labels order the unseen rows, and what the arms keep of the gradients' gain."""
    sizes = {"125": "predictions_125", "250": "predictions_250", "500": "predictions_500", "1000": "predictions_1000"}
    sizes["2000"] = "value_predictions"
    agree(root, "dear_scores", sizes, [("2000", name) for name in list(sizes)[:-1]])
    arms(table(root, "pool_comparison", "losses"))


def other_target(root: Path) -> None:
    """Print how each target's labels, the other's and the similarity to its queries order the unseen rows; and the arms."""
    for mine, other in (("reference", "lore"), ("lore", "reference")):
        print(f"\ntarget {mine}")
        names = {f"labels of {mine}": f"predictions_{mine}", f"labels of {other}": f"predictions_{other}"}
        names |= {"similarity": f"similarity_{mine}", f"gradients of {other}": f"dear_{other}"}
        agree(root, f"dear_{mine}", names, [(f"labels of {other}", name) for name in names if name != f"labels of {other}"])
        arms(table(root, f"comparison_{mine}", "losses"))


def continue_or_anew(root: Path) -> None:
    """Print the arms of both plans, and each arm continued minus the same arm anew."""
    both = {name: table(root, name, "losses") for name in ("continued", "anew")}
    for name, losses in both.items():
        print(f"\n{name}")
        arms(losses)
    for (budget, arm), _ in both["anew"].groupby(["budget", "arm"]):
        effect = paired_effect(*(matrix(losses, budget, arm) for losses in both.values()))
        print(f"| {budget} | {arm} | continued minus anew | {effect.effect:+.3f} | {effect.low:+.3f} to {effect.high:+.3f} |")


def sequence_length(root: Path) -> None:
    """Print how cut gradients and predictions order the rows as whole gradients do, and the arms."""
    for cut in (64, 96):
        names = {
            f"gradients, {cut}": f"dear_{cut}",
            f"predicted, {cut}": f"predictions_{cut}",
            "predicted, 256": "value_predictions",
        }
        agree(root, "dear_scores", names, [])
    losses = {length: table(root, f"comparison_{length}", "losses") for length in (64, 96, 256)}
    for length, mine in losses.items():
        print(f"\n{length}")
        own = ("dear_scores", "value_predictions") if length == 256 else (f"dear_{length}", f"predictions_{length}")
        agree(root, own[0], {"own gradients, predicted": own[1]}, [])
        arms(mine)
        for arm in ("sae", "attribution", "random"):
            effect = paired_effect(*(matrix(each, 10000, arm) for each in (mine, losses[256])))
            p = max(effect.p_seeds, effect.p_items, effect.p_both)
            print(f"| {arm}, minus that of 256 | {effect.effect:+.3f} | {effect.low:+.3f} to {effect.high:+.3f} | {p:.3f} |")


def larger_model(root: Path) -> None:
    """Print how the small model's predictions, features and gradients order the rows as the larger one's gradients do, and the arms."""
    names = {"small": "value_predictions", "small features, large labels": "mixed_predictions"}
    names |= {"large": "large_predictions", "small gradients": "dear_scores"}
    agree(root, "large_dear", names, [("small", name) for name in list(names)[1:]])
    arms(table(root, "large_comparison", "losses"), "large_attribution")


def table(root: Path, entry: str, name: str) -> pd.DataFrame:
    """Return a table, in one file or in shards, of an entry's artifact: the one that the root's manifest names."""
    folder = find_artifact(root / entry)
    return pd.read_parquet(folder / f"{name}.parquet" if (folder / f"{name}.parquet").exists() else folder / name)


def agree(root: Path, reference: str, names: dict[str, str], pairs: list[tuple[str, str]]) -> None:
    """Print how scores order the rows that all of them hold as the reference does."""
    columns = [table(root, entry, "scores").set_index("row_id")["score"] for entry in (reference, *names.values())]
    shared = pd.concat(columns, axis=1, join="inner", keys=["reference", *names]).sort_index()
    print(f"\n{len(shared)} rows, as {reference}")
    order(shared["reference"].to_numpy(), {name: shared[name].to_numpy() for name in names}, pairs)


def order(score: np.ndarray, found: Columns, pairs: list[tuple[str, str]]) -> None:
    """Print AUROC (of the top quarter) and Spearman with 95 % intervals over rows, and differences on the same draws."""
    rng = np.random.default_rng(0)
    drawn = [np.arange(len(score)), *(rng.integers(0, len(score), len(score)) for _ in range(DRAWS))]
    top = score >= np.sort(score)[-round(len(score) / 4)]
    values = {name: np.array([measures(score[i], top[i], made[i]) for i in drawn]).T for name, made in found.items()}
    values |= {f"{one} minus {other}": values[one] - values[other] for one, other in pairs}
    for name, both in values.items():
        sign = "+" if " minus " in name else ""
        cells = [
            f"{v[0]:{sign}.3f} | {np.quantile(v[1:], 0.025):{sign}.3f} to {np.quantile(v[1:], 0.975):{sign}.3f}" for v in both
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def measures(score: np.ndarray, top: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    """Return the AUROC of the top rows and the Spearman with the score."""
    rank, count = rankdata(made), int(top.sum())
    auroc = (rank[top].sum() - count * (count + 1) / 2) / (count * (len(top) - count))
    return auroc, float(np.corrcoef(rank, rankdata(score))[0, 1])


def arms(losses: pd.DataFrame, whole: str = "attribution") -> None:
    """Print each arm's loss, its distance from random, and the share of the gain of `whole` over random that it keeps."""
    for budget, mine in losses.groupby("budget"):
        loss = {str(arm): matrix(mine, budget, arm) for arm in mine["arm"].unique()}
        for arm, values in loss.items():
            effect = paired_effect(values, loss["random"])
            told = f"{effect.effect:+.3f} | {effect.low:+.3f} to {effect.high:+.3f}" if arm != "random" else " | "
            share = kept(values, loss["random"], loss[whole])
            print(f"| {budget} | {arm} | {values.mean():.3f} | {told} | {share} |")


def kept(arm: np.ndarray, random: np.ndarray, whole: np.ndarray) -> str:
    """Return (random - arm) / (random - whole) with its 95 % interval: seeds and rows drawn at once."""
    rng, (seeds, rows) = np.random.default_rng(0), arm.shape
    found = []
    for draw in range(DRAWS + 1):
        s, r = (rng.integers(0, seeds, seeds), rng.integers(0, rows, rows)) if draw else (np.arange(seeds), np.arange(rows))
        one, zero, all_ = (each[np.ix_(s, r)].mean() for each in (arm, random, whole))
        found.append((zero - one) / (zero - all_))
    return f"{found[0]:.2f} ({np.quantile(found[1:], 0.025):.2f} to {np.quantile(found[1:], 0.975):.2f})"


QUESTIONS = {
    "sae-layer": sae_layer,
    "pool-size": pool_size,
    "other-target": other_target,
    "continue-or-anew": continue_or_anew,
    "sequence-length": sequence_length,
    "larger-model": larger_model,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
