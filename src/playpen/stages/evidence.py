"""Put on one page what a sceptic asks for: do the labels hold, does the prediction, against whom, and at what price?

    playpen evidence --classifier runs/world/classifier --validation runs/world/validation --comparison runs/world/comparison

Reads one artifact of classify, one of validate and one of compare, and what they were made from where it lies beside them. Each
claim has a figure and what it needs, which stands in the plan of the comparison (`needed` of preregister), fixed before any arm was
trained; nothing can be chosen here. The first sentence of the page names every claim that does not hold. The three must
belong together: the predictions that were judged and picked from are of this classifier, and all are of the same data.

Writes `evidence.json` (LDS of the labels, of every rival and what the prediction retains; AUROC of features and of each control;
each arm's effect; the claims), `index.html`, `report.md`, `figures/`, `summary.txt`, and `metrics.json` with the costs too. The same
artifacts give the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playpen.config import Input, PlaypenError, config, did_you_mean

if TYPE_CHECKING:
    from playpen.evidence import Found
    from playpen.machine import Machine

VERSION = 2
KINDS = {"classifier": "classify", "validation": "validate", "comparison": "compare"}
"""Which stage each input is an artifact of."""


@config
class Config:
    """What holds against a sceptic?"""

    classifier: Input
    """Artifact of classify: the classifier behind the predictions, against its controls."""
    validation: Input
    """Artifact of validate, with a keep-half bank and the labels as `reference`."""
    comparison: Input
    """Artifact of compare, whose plan's subject picks by the predictions."""
    subject: str = "sae"
    """What the predictions are called, among the scores of the validation and the arms of the plan alike."""
    title: str = "Evidence"
    """Heading of the page."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the numbers, the page and its figures."""
    from playpen import evidence, evidence_page
    from playpen.report_page.figures import pen
    from playpen.scorer_costs import scorer_costs
    from playpen.tables import write_json

    found = read(config)
    made, costs = evidence.claims(config, found), scorer_costs(found.scores, config.subject, found.manifests)
    numbers = evidence.plain(config, found, made)
    evidence_page.write_page(evidence_page.make_page(config, found, made, costs, pen(out / "figures")), out)
    write_json(out / "evidence.json", numbers)
    write_json(out / "metrics.json", {**numbers, "costs": {cost.name: cost.plain() for cost in costs}})


def read(config: Config) -> "Found":
    """Read the three artifacts; raises where one is of another stage, or they do not belong together or lack a name."""
    from playpen.evidence import Found
    from playpen.report_page.sources import read_lineage
    from playpen.stages import compare
    from playpen.tables import has_table, read_metrics, read_table

    manifests = read_lineage([config.classifier, config.validation, config.comparison])
    inputs = {name: read_input(config, name) for name in KINDS}
    named = {name: inputs["comparison"]["config"][name] for name in ("plan", "model", "data", "init")}
    made = {name: beside(manifests, mark, f"{name} of {config.comparison}") for name, mark in named.items() if mark}
    compared = compare.Config(**{name: manifest["path"] for name, manifest in made.items()})
    plan = compare.read_plan(compared)
    if "needed" not in made["plan"]["config"]:
        raise PlaypenError(
            f"evidence: the plan of {config.comparison} fixes nothing that claims need; preregister and compare again"
        )
    found = Found(
        manifests=manifests,
        inputs=inputs,
        classified=read_metrics(config.classifier),
        gaps=read_table(config.classifier, "differences", ["model", "against", "measure", "value", "low", "high"]),
        heldout=read_table(config.classifier, "heldout", ["row_id", "model", "label", "score", "prediction"]),
        validated=read_metrics(config.validation),
        judged={
            name: read_table(config.validation, name) for name in ("lds", "tails", "recall") if has_table(config.validation, name)
        },
        scores=inputs["validation"]["config"]["scores"],
        banks=tuple(inputs["validation"]["config"]["banks"]),
        plan=plan,
        planned=made["plan"],
        effects=read_table(config.comparison, "effects"),
        losses=read_table(config.comparison, "losses"),
        sizes=compare.arm_sizes(compared, plan),
    )
    check_names(config, found)
    check_together(config, found)
    return found


def read_input(config: Config, name: str) -> dict[str, Any]:
    """Return the manifest of one of the three inputs; raises when it is of another stage."""
    from playpen.artifact import read_manifest

    path = getattr(config, name)
    manifest = read_manifest(path)
    if manifest["kind"] != KINDS[name]:
        raise PlaypenError(f"evidence: {name} {path} is an artifact of {manifest['kind']}, expected one of {KINDS[name]}")
    return manifest


def beside(manifests: Mapping[str, dict[str, Any]], mark: str, what: str) -> dict[str, Any]:
    """Return the manifest of a fingerprint that was found; raises when it was not, and says what it is."""
    if mark not in manifests:
        raise PlaypenError(f"evidence: {mark}, the {what}, does not lie beside it; bring it there, or run the plan again")
    return manifests[mark]


def check_names(config: Config, found: "Found") -> None:
    """Raise when an artifact lacks something that the claims name."""
    if found.validated.get("reference") is None:
        raise PlaypenError(f"evidence: {config.validation} names no labels; validate with reference set to their name")
    if "lds" not in found.validated:
        raise PlaypenError(
            f"evidence: {config.validation} has no LDS of random subsets kept; validate with a keep_half bank of retrain"
        )
    check_known("subject", config.subject, list(found.scores), f"scores of {config.validation}")
    if found.plan.subject != config.subject:
        raise PlaypenError(
            f"evidence: subject is '{config.subject}', but the subject of the plan of {config.comparison} is '{found.plan.subject}'; "
            "the predictions must be called the same in both"
        )
    for name in found.needed.lds_rivals:
        known = [other for other in found.validated["lds"] if other not in ("retained", "ceiling", found.reference)]
        check_known("needed.lds_rivals of the plan", name, known, f"scores of {config.validation} beside the labels")
        if "behind_low" not in found.validated["lds"][name]:
            raise PlaypenError(
                f"evidence: {config.validation} has no paired differences from '{found.reference}'; validate again"
            )
    if found.classified["models"][found.saved]["uses"] != "features":
        raise PlaypenError(
            f"evidence: the row that {config.classifier} saved, '{found.saved}', is not of SAE features alone; classify with save left out"
        )
    for name in found.needed.controls:
        check_known("needed.controls of the plan", name, found.controls, f"controls of {config.classifier}")


def check_known(field: str, name: str, known: list[str], what: str) -> None:
    """Raise when a name is not among those known."""
    if name not in known:
        raise PlaypenError(f"evidence: {field} names '{name}', which is none of the {what}{did_you_mean(name, known)}")


def check_together(config: Config, found: "Found") -> None:
    """Raise when the three artifacts speak of different predictions, classifiers or data."""
    from playpen.report_page.sources import behind

    classifier = found.inputs["classifier"]
    mark = found.scores[config.subject]
    picked = found.planned["config"]["arms"][config.subject].get("scores")
    if picked != mark:
        raise PlaypenError(
            f"evidence: {config.validation} judged the scores {mark} as '{config.subject}', but the arm of that name in "
            f"{config.comparison} picks by {picked}; compare and validate the same scores"
        )
    predictions = beside(found.manifests, mark, f"scores '{config.subject}' of {config.validation}")
    if classifier["fingerprint"] not in behind(predictions, found.manifests):
        raise PlaypenError(
            f"evidence: the scores '{config.subject}' ({predictions['directory']}) were not made by the classifier {config.classifier}; "
            "give the one that they were predicted by"
        )
    check_labels(config, found, classifier)
    data = {name: made["config"]["data"] for name, made in found.inputs.items()}
    if len(set(data.values())) > 1:
        told = ", ".join(f"{name} {mark}" for name, mark in data.items())
        raise PlaypenError(f"evidence: the three artifacts are of different data ({told}); make them from the same")


def check_labels(config: Config, found: "Found", classifier: dict) -> None:
    """Raise when the labels judged are not made as those that were learnt, or were judged on the targets that they aim at."""
    learnt = beside(found.manifests, classifier["config"]["scores"], f"scores of {config.classifier}")
    judged = beside(found.manifests, found.scores[found.reference], f"scores '{found.reference}' of {config.validation}")
    here, there = ({**made["config"], "split": "", "kind": made["kind"]} for made in (learnt, judged))
    if differ := sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name)):
        raise PlaypenError(
            f"evidence: {config.validation} judges other labels, '{found.reference}', than {config.classifier} learnt: {differ[0]} is "
            f"{there.get(differ[0])} there and {here.get(differ[0])} here; attribute both splits in the same way"
        )
    for mark in found.banks:
        if beside(found.manifests, mark, f"bank of {config.validation}")["config"]["targets"] == "query":
            raise PlaypenError(
                f"evidence: a bank of {config.validation} measured the queries, at which the labels aim; retrain with targets test"
            )
