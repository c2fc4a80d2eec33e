"""What it costs to score rows, by scorer: the run itself, and what had to be made once before it could be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from playpen.flops import estimate
from playpen.report_page.layout import Cell, Table, count, num
from playpen.report_page.provenance import gigabytes, operations_cell, total
from playpen.report_page.sources import behind

Manifests = Mapping[str, dict[str, Any]]

ONCE = ("finetune", "attribute", "load-sae", "train-sae", "fingerprint", "classify")
"""Stages that prediction needs once, whatever the number of rows: labels and their adapter, the SAE, the classifier."""


@dataclass(frozen=True, eq=False)
class Cost:
    """The price of a scorer; None where nothing tells it."""

    name: str
    rows: float | None = None
    """Rows scored."""
    seconds: float | None = None
    """Wall-clock seconds of a thousand rows, as everything below."""
    tokens: float | None = None
    flops: float | None = None
    memory: Cell = Cell("–")
    """The most that was held, in GB, whatever the number of rows."""

    def plain(self) -> dict[str, float | None]:
        """Return the numbers, by thousand rows."""
        return {
            "rows": self.rows,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "flops": self.flops,
            "peak_gb": self.memory.sort,
        }


def scorer_costs(scores: Mapping[str, str], subject: str, manifests: Manifests) -> list[Cost]:
    """Return the price of each scorer by name, the dearest first; that of `subject` with all it needed once stands there too.

    `scores` has the fingerprints. A rival that reads fingerprints of the rows is charged with them.
    """
    found = [_cost(name, manifests.get(mark), manifests) for name, mark in scores.items()]
    if scores[subject] in manifests:
        found.append(_with_once(f"{subject}, with what it needs once", manifests[scores[subject]], manifests))
    return sorted(found, key=lambda cost: -(cost.seconds if cost.seconds is not None else -1.0))


def _cost(name: str, manifest: dict[str, Any] | None, manifests: Manifests) -> Cost:
    if manifest is None:
        return Cost(name)
    method = manifest["config"].get("method") or {}
    read = [manifests[mark] for mark in method.values() if isinstance(mark, str) and mark in manifests]
    return _together(name, [manifest, *(each for each in read if each["kind"] == "fingerprint")], manifests)


def _with_once(name: str, manifest: dict[str, Any], manifests: Manifests) -> Cost:
    needed = [each for each in behind(manifest, manifests).values() if each["kind"] in ONCE]
    return _together(name, [manifest, *needed], manifests, partly=True)


def _together(name: str, found: list[dict[str, Any]], manifests: Manifests, partly: bool = False) -> Cost:
    """Return the price of several runs by thousand rows of the first; with `partly`, operations of all but classify."""
    rows = total(found[:1], "rows")
    if not rows:
        return Cost(name)
    seconds = sum(float(each["provenance"].get("seconds") or 0) for each in found)
    tokens, flops = total(found, "tokens"), _operations(found, manifests, partly)

    def thousand(value: float | None) -> float | None:
        return None if value is None else 1000 * value / rows

    return Cost(name, rows, thousand(seconds), thousand(tokens), thousand(flops), gigabytes(found))


def _operations(found: Iterable[dict[str, Any]], manifests: Manifests, partly: bool) -> int | None:
    told = [estimate(each, manifests) for each in found if not (partly and each["kind"] == "classify")]
    return None if None in told else sum(each or 0 for each in told)


def costs_table(costs: list[Cost], subject: str) -> Table:
    """Return one row a scorer."""
    heads = ("scores", "rows scored", "seconds", "tokens", "FLOPs", "peak memory")
    rows = tuple(
        (Cell(cost.name), count(cost.rows), num(cost.seconds, 2), count(cost.tokens), operations_cell(cost.flops), cost.memory)
        for cost in costs
    )
    note = (
        "For a thousand rows, start-up, opening the model and the queries included; memory in GB, the most that was held. FLOPs are "
        "estimates, as in the ledger below. What is needed once, spread over the rows scored: labels, the adapter whose gradients they "
        "are, the SAE, fingerprints of the labelled rows and the classifier, whose training has no estimate of FLOPs. Scores made of "
        "fingerprints are charged with them. A dash: no product of matrices, nothing to estimate from, or no artifact beside."
    )
    return Table("scorer-costs", heads, rows, note, subject)


def ratio(labels: Cost, predicted: Cost) -> str:
    """Return in a sentence how much dearer a thousand rows are by gradients than by prediction."""
    if not labels.seconds or not predicted.seconds:
        return "The costs of labels and predictions cannot be compared: an artifact does not lie beside."
    times = labels.seconds / predicted.seconds
    found = (
        f"A thousand rows took {labels.seconds:.1f} seconds by gradients ({labels.name}) and {predicted.seconds:.1f} by prediction "
        f"({predicted.name}), a ratio of {times:.1f}"
    )
    if labels.flops and predicted.flops:
        found += f"; of estimated operations the ratio is {labels.flops / predicted.flops:.1f}"
    return found + "."
