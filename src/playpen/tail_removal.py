"""Tail removal: does leaving out the rows that scores rank highest cost more than leaving out as many random ones?

    QLD = mean target loss without the top share - mean over random removals of the same size

in nats a label, mean over seeds and targets; above 0 when the top rows were worth more than random ones (the measure of
Bergson's leaderboard, https://github.com/EleutherAI/bergson). One training run says little: `deviations` is QLD over the
standard deviation of the D random removals, and under the hypothesis that the top is one more random removal,
deviations / sqrt(1 + 1/D) follows Student's t with D - 1 degrees of freedom (the prediction interval of a normal sample).
So interval and p know of the choice of rows and of the noise of training, for these targets.
"""

import numpy as np
import pandas as pd

from playpen.banks import Bank
from playpen.paired import holm


def tail_table(bank: Bank) -> pd.DataFrame:
    """Return one row for each scorer and share of a `drop` bank: share, scores, removed, loss, random_loss, all_loss (nats a label),

    qld with its 95 % interval `low`, `high`, deviations, p (two-sided), p_holm and draws (D). `p_holm` is adjusted for all
    scorers and shares (Holm 1979); the length control is not among them, and has none.
    """
    mean = bank.losses.mean(axis=(1, 2))
    everything = float(mean[bank.places("all")].mean())
    found = []
    for place in bank.places("top"):
        top = bank.designs[place]
        random = mean[[i for i in bank.places("random") if bank.designs[i].share == top.share]]
        removed = int((~top.kept).sum())
        told = {"share": top.share, "scores": top.scores, "removed": removed, "loss": float(mean[place])}
        found.append({**told, **against_random(float(mean[place]), random), "all_loss": everything})
    table = pd.DataFrame(found)
    adjusted = holm({str(place): p for place, p in table.loc[table["scores"] != "length", "p"].items()})
    return table.assign(p_holm=[adjusted.get(str(place), np.nan) for place in table.index])


def against_random(loss: float, random: np.ndarray) -> dict[str, float]:
    """Return how a loss stands to those of `random` removals [D], D at least 2: qld, low, high, deviations, p, random_loss, draws."""
    from scipy.special import stdtr, stdtrit  # scipy.stats takes seconds to import

    draws, deviation = len(random), float(random.std(ddof=1))
    qld, error = loss - float(random.mean()), deviation * np.sqrt(1 + 1 / draws)
    reach = float(stdtrit(draws - 1, 0.975)) * error
    t = qld / error if error else 0.0 if qld == 0 else np.copysign(np.inf, qld)
    return {
        "random_loss": float(random.mean()),
        "qld": qld,
        "low": qld - reach,
        "high": qld + reach,
        "deviations": qld / deviation if deviation else float("nan"),
        "p": float(2 * stdtr(draws - 1, -abs(t))),
        "draws": draws,
    }
