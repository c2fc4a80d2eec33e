"""Names of features: their top tokens, and where to look at them: a dashboard of ours, or Neuronpedia."""

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from playpen import artifact
from playpen.config import PlaypenError
from playpen.tables import read_table

TOKENS = 5
"""Tokens that name a feature."""


@dataclass(frozen=True)
class FeatureNames:
    """Where the features of a SAE are described."""

    tokens: dict[int, list[str]] | None
    """By the SAE's feature, its commonest tokens in a dashboard; None without a dashboard."""
    dashboard: str | None
    """Path of the dashboard's page, relative to the artifact that links to it."""
    neuronpedia: str | None
    """What Neuronpedia calls the SAE: `model/layer-set`."""

    def links(self, feature: int) -> dict[str, str]:
        """Return the addresses of a feature of the SAE, `dashboard` and `neuronpedia`, where it is shown."""
        found = {}
        if self.dashboard is not None and self.tokens is not None and feature in self.tokens:
            found["dashboard"] = f"{self.dashboard}#f={feature}"
        if self.neuronpedia is not None:
            found["neuronpedia"] = f"https://www.neuronpedia.org/{self.neuronpedia}/{feature}"
        return found


def open_names(dashboard: str | None, neuronpedia: str | None, sae: str, out: Path) -> FeatureNames:
    """Open what describes the features of the artifact `sae`, for links from the artifact `out`. Raises when it is of another SAE."""
    if dashboard is None:
        return FeatureNames(None, None, neuronpedia)
    found, wanted = artifact.read_manifest(dashboard), artifact.read_manifest(sae)["fingerprint"]
    if found["kind"] != "features":
        raise PlaypenError(f"names: {dashboard} is an artifact of {found['kind']}; expected a dashboard, of features")
    if found["config"]["sae"] != wanted:
        raise PlaypenError(
            f"names: {dashboard} shows the features of SAE {found['config']['sae']}, but {sae} is SAE {wanted}; make its own dashboard"
        )
    table = read_table(dashboard, "features", ["id", "tokens"])
    tokens = {int(i): list(several) for i, several in zip(table["id"], table["tokens"], strict=True)}
    return FeatureNames(tokens, os.path.relpath(Path(dashboard) / "index.html", out.resolve()), neuronpedia)


def strongest_tokens(firings: pd.DataFrame) -> dict[int, list[str]]:
    """Return for each `feature` its `TOKENS` different `token`s of the greatest summed `strength`, the first of equals first."""
    total = firings.groupby(["feature", "token"], sort=True)["strength"].sum().reset_index()
    total = total.sort_values(["feature", "strength"], ascending=[True, False], kind="stable").groupby("feature").head(TOKENS)
    found: dict[int, list[str]] = {}
    for feature, token in zip(total["feature"].tolist(), total["token"].tolist(), strict=True):
        found.setdefault(feature, []).append(token)
    return found
