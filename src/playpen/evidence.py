"""What three artifacts say for and against a method: their numbers by name, and each claim with what it needs to hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from playpen.report_page.layout import number, probability, span

if TYPE_CHECKING:
    from playpen.needed import Needed
    from playpen.stages.evidence import Config
    from playpen.stages.preregister import Config as Plan

MEASURES = {"auroc": "AUROC", "spearman_within_source": "Spearman within a source"}
"""The measures in which features must be ahead of each control."""
OF_FEATURES = ("features", "features+metadata")
"""What rows of classify's report use that are no controls."""


@dataclass(frozen=True, eq=False)
class Found:
    """What was read."""

    manifests: Mapping[str, dict[str, Any]]
    """Those of the three artifacts and of all that they were made from, by fingerprint."""
    inputs: Mapping[str, dict[str, Any]]
    """Those of the three, as `classifier`, `validation` and `comparison`."""
    classified: Mapping[str, Any]
    """Metrics of classify."""
    gaps: pd.DataFrame
    """Its table `differences`."""
    heldout: pd.DataFrame
    validated: Mapping[str, Any]
    """Metrics of validate; `lds` holds every scorer."""
    judged: Mapping[str, pd.DataFrame]
    """Its tables."""
    scores: Mapping[str, str]
    """Fingerprints of the scores that it judged, by name."""
    banks: tuple[str, ...]
    """Fingerprints of the banks that judged them."""
    plan: "Plan"
    planned: dict[str, Any]
    """The plan's manifest."""
    effects: pd.DataFrame
    losses: pd.DataFrame
    sizes: pd.DataFrame
    """Rows, tokens, labels and steps of each arm, as of `compare.arm_sizes`."""

    @property
    def needed(self) -> "Needed":
        """What the plan says that each claim needs."""
        return self.plan.needed

    @property
    def reference(self) -> str:
        """The name of the labels among the scores."""
        return self.validated["reference"]

    @property
    def saved(self) -> str:
        """The row of classify's report that made the predictions."""
        return self.classified["saved"]

    @property
    def controls(self) -> list[str]:
        """The rows of classify's report that features are held against."""
        return list(dict.fromkeys(self.gaps["against"]))

    @property
    def largest(self) -> pd.DataFrame:
        """The rows of `effects` at the largest budget."""
        return self.effects[self.effects["budget"] == self.effects["budget"].max()]

    @property
    def family(self) -> pd.DataFrame:
        """The rows of `effects` that the claim is about, at every budget."""
        return self.effects[self.effects["in_family"]]


@dataclass(frozen=True)
class Claim:
    """Something that a sceptic asks for."""

    claim: str
    value: float | None
    """What was found; None where it is not defined, and the claim then does not hold."""
    needed: float
    """What `value` must reach; of a p value, what it must be below."""
    holds: bool
    failure: str
    """What to say when it does not hold, with the figures."""

    def plain(self) -> dict[str, Any]:
        """Return what is written down."""
        return {"claim": self.claim, "value": self.value, "needed": self.needed, "holds": self.holds}


def claims(config: "Config", found: Found) -> list[Claim]:
    """Return every claim, those about labels first, then prediction, controls and arms."""
    return [*_lds_claims(config, found), *_auroc_claims(config, found), *_arm_claims(config, found)]


def _at_least(what: str, value: float | None, needed: float) -> Claim:
    holds = value is not None and value >= needed
    told = "not defined" if value is None else number(value)
    return Claim(f"{what} is at least {needed:g}", value, needed, holds, f"{what} is {told}, {needed:g} is needed")


def _lds_claims(config: "Config", found: Found) -> list[Claim]:
    lds, name = found.validated["lds"], found.reference
    labels = lds[name]
    made = [_at_least(f"LDS of the labels ({name})", labels["pooled"], found.needed.lds)]
    for rival in found.needed.lds_rivals:
        value, low, high = (lds[rival][f"behind{end}"] for end in ("", "_low", "_high"))
        made.append(_ahead("the labels", value, low, high, rival, "LDS"))
    kept = lds["retained"].get(config.subject, {}).get("value")
    return [*made, _at_least(f"LDS retained by {config.subject}", kept, found.needed.retained)]


def _auroc_claims(config: "Config", found: Found) -> list[Claim]:
    best = found.saved
    made = [_at_least(f"AUROC of {best}", found.classified["models"][best]["auroc"], found.needed.auroc)]
    gaps = found.gaps[found.gaps["model"] == best].set_index(["against", "measure"])
    for control in found.needed.controls:
        for measure, title in MEASURES.items():
            value, low, high = (_known(gaps.loc[(control, measure), end]) for end in ("value", "low", "high"))
            made.append(_ahead(best, value, low, high, control, title))
    return made


def _ahead(who: str, value: float | None, low: float | None, high: float | None, rival: str, title: str) -> Claim:
    """Return the claim that a paired difference is surely above 0; its figure is the interval's lower end."""
    told = "not defined" if value is None or low is None or high is None else f"{number(value, 3, True)}, {span(low, high)}"
    verb = "are" if who == "the labels" else "is"
    failure = f"{who} {verb} not surely ahead of {rival} in {title} ({told})"
    holds = low is not None and low > 0
    return Claim(f"{who} {verb} ahead of {rival} in {title}, by an interval above 0", low, 0.0, holds, failure)


def _arm_claims(config: "Config", found: Found) -> list[Claim]:
    made, level = [], found.needed.level
    several = found.effects["budget"].nunique() > 1
    for row in found.family.to_dict("records"):
        p, arm = _known(row["p_holm"]), row["arm"] + (f" at {row['budget']:,} tokens" if several else "")
        claim = f"{config.subject} has a lower held-out loss than {arm} (p < {level:g}, Holm)"
        told = f"{number(row['effect'], 3, True)} nats a token, p {probability(p)}"
        failure = f"{config.subject} does not beat {arm} at p < {level:g} ({told})"
        made.append(Claim(claim, p, level, p is not None and p < level and row["effect"] < 0, failure))
    return made


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def plain(config: "Config", found: Found, made: list[Claim]) -> dict[str, Any]:
    """Return the numbers of `evidence.json`; None where one is not defined."""
    lds, models = found.validated["lds"], found.classified["models"]
    judged = [name for name in lds if name not in ("ceiling", "retained", found.reference, config.subject)]
    controls = [name for name, row in models.items() if row["uses"] not in OF_FEATURES]
    columns = ("effect", "low", "high", "p_holm")
    return {
        "lds": {
            "labels": lds[found.reference]["pooled"],
            "retained": lds["retained"].get(config.subject, {}).get("value"),
            "rivals": {name: lds[name]["pooled"] for name in judged},
        },
        "auroc": {"sae": models[found.saved]["auroc"], "controls": {name: models[name]["auroc"] for name in controls}},
        "arms": {row["arm"]: {name: _known(row[name]) for name in columns} for row in found.largest.to_dict("records")},
        "claims": [claim.plain() for claim in made],
    }


def answer(config: "Config", found: Found, made: list[Claim]) -> str:
    """Return the outcome: first, in one sentence, every claim that does not hold, or that all do; then the main figures."""
    failed = [claim for claim in made if not claim.holds]
    verb = "does" if len(failed) == 1 else "do"
    first = f"All {len(made)} claims hold"
    if failed:
        first = f"Of {len(made)} claims {len(failed)} {verb} not hold: {'; '.join(claim.failure for claim in failed)}"
    numbers, family = plain(config, found, made), found.family
    kept = numbers["lds"]["retained"]
    share = "a share that is not defined" if kept is None else number(kept)
    beaten = int(((family["effect"] < 0) & (family["p_holm"] < found.needed.level)).sum())
    return (
        f"{first}. The labels have an LDS of {number(numbers['lds']['labels'])}, of which {config.subject} retains "
        f"{share}; {found.saved} tells the labels' top from the rest with an AUROC of {number(numbers['auroc']['sae'])}; "
        f"{config.subject} wins {beaten} of {len(family)} planned comparisons."
    )
