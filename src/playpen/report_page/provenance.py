"""Where the numbers come from: costs by stage, artifacts, and how to make them again."""

from collections.abc import Iterable, Mapping
from typing import Any

from playpen.flops import estimate
from playpen.report_page.layout import Cell, Lines, Section, Table, count, num
from playpen.report_page.sources import strings_in

Manifests = Mapping[str, dict[str, Any]]
AGAIN = ("retrain", "compare", "validate")
"""Stages that meet each of their rows again and again, so that there is no price of a row."""


def cost_table(manifests: Manifests) -> Table:
    """Return seconds, memory, tokens, operations and rows by stage, the dearest first; each rival of `score` is one."""
    stages: dict[str, list[dict[str, Any]]] = {}
    for manifest in manifests.values():
        stages.setdefault(_stage(manifest), []).append(manifest)
    spent = {stage: sum(_seconds(manifest) for manifest in found) for stage, found in stages.items()}
    most = max(spent.values(), default=0.0) or 1.0
    order = sorted(spent, key=lambda stage: -spent[stage])
    rows = tuple(_cost_row(stage, stages[stage], manifests, spent[stage] / most) for stage in order)
    heads = (
        "stage",
        "runs",
        "seconds",
        "peak memory",
        "tokens",
        "FLOPs",
        "rows",
        "seconds per 1,000 rows",
        "FLOPs per 1,000 rows",
    )
    bottom = (Cell("all together"), count(len(manifests)), num(sum(spent.values()), 1), *[Cell("")] * (len(heads) - 3))
    note = (
        "Wall-clock seconds on the machine below, start-up of each stage included; of a run that was stopped, those of its last part. "
        "Memory: the most that the process held while the stage ran, in GB, of its dearest run. Tokens and rows where a stage tells them. "
        "FLOPs: an estimate, 2 for each matrix weight and token of a forward pass (Kaplan et al. 2020, section 2.1), 2 more for the way back "
        "through it, 2 more where it is trained; attention between tokens, padding, norms and optimisers left out. A dash: no product of "
        "matrices, or nothing to estimate from."
    )
    return Table("costs", heads, (*rows, bottom), note, "all together")


def _stage(manifest: dict[str, Any]) -> str:
    method = manifest["config"].get("method")
    rival = method.get("kind") if manifest["kind"] == "score" and isinstance(method, dict) else None
    return f"score {rival}" if rival else manifest["kind"]


def _cost_row(stage: str, found: list[dict[str, Any]], manifests: Manifests, bar: float) -> tuple[Cell, ...]:
    seconds, operations = sum(map(_seconds, found)), [estimate(manifest, manifests) for manifest in found]
    flops = None if None in operations else sum(each or 0 for each in operations)
    tokens, rows = (total(found, name) for name in ("tokens", "rows"))
    thousands = rows / 1000 if rows and stage not in AGAIN else None
    spent = (num(seconds, 1, bar=bar), gigabytes(found), count(tokens), operations_cell(flops))
    each = (num(seconds / thousands, 2), operations_cell(flops and flops / thousands)) if thousands else (Cell("–"), Cell("–"))
    return (Cell(stage), count(len(found)), *spent, count(rows), *each)


def gigabytes(found: Iterable[dict[str, Any]]) -> Cell:
    """Return the most memory that any of some runs held, in GB."""
    return num(max((manifest["provenance"].get("peak_memory") or 0 for manifest in found), default=0) / 1e9 or None, 2)


def operations_cell(flops: float | None) -> Cell:
    """Return operations as 1.23e+12; a dash where there are none, or no estimate."""
    return Cell(f"{flops:.2e}", flops) if flops else Cell("–")


def _seconds(manifest: dict[str, Any]) -> float:
    return float(manifest["provenance"].get("seconds") or 0.0)


def total(found: Iterable[dict[str, Any]], name: str) -> float | None:
    """Return the sum of a metric that is a number or a mapping of numbers (one a split); None where no artifact has it."""
    values = [manifest.get("metrics", {}).get(name) for manifest in found]
    parts = [item for value in values for item in (value.values() if isinstance(value, dict) else [value])]
    numbers = [item for item in parts if isinstance(item, int | float) and not isinstance(item, bool)]
    return sum(numbers) if numbers else None


def costs(manifests: Manifests) -> dict[str, float]:
    """Return seconds by artifact."""
    return {manifest["directory"]: _seconds(manifest) for manifest in manifests.values()}


def reproduction(manifests: Manifests) -> Section:
    """Return the commands, the versions, the machine and every artifact with its fingerprint."""
    commands = _distinct(manifests, lambda origin: origin.get("command"))
    lead = "An artifact is named by what it was made from: the same config gives the same fingerprint, anywhere."
    blocks = (Lines(commands, "Run in a checkout of the commit below."), _setting(manifests), _artifacts(manifests))
    return Section(
        "How to make this again", lead, tuple(block for block in blocks if not isinstance(block, Lines) or block.lines)
    )


def _distinct(manifests: Manifests, get: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for manifest in manifests.values() if (value := get(manifest["provenance"]))))


def _setting(manifests: Manifests) -> Table:
    found = {
        "commit": _distinct(manifests, lambda origin: origin.get("commit")),
        "python": _distinct(manifests, lambda origin: origin.get("python")),
        "system": _distinct(manifests, lambda origin: origin.get("host", {}).get("system")),
        "cores": _distinct(manifests, lambda origin: origin.get("host", {}).get("cores")),
        "machine settings": _distinct(manifests, lambda origin: _words(origin.get("machine"))),
        "packages": _distinct(manifests, lambda origin: _words(origin.get("packages"))),
    }
    rows = tuple((Cell(name), Cell("; ".join(values))) for name, values in found.items() if values)
    return Table(
        "setting", ("what", "value"), rows, "As written down by the artifacts themselves; several values mean several runs."
    )


def _words(values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None) if isinstance(values, dict) else ""


def _artifacts(manifests: Manifests) -> Table:
    names = {mark: manifest["name"] for mark, manifest in manifests.items()}
    rows = []
    for mark, manifest in manifests.items():
        parents = dict.fromkeys(names[text] for text in strings_in(manifest["config"]) if text in names and text != mark)
        size = sum(entry[0] for entry in manifest["files"].values()) / 1e6
        cells = (Cell(manifest["name"]), Cell(mark), Cell(manifest["kind"]), Cell(", ".join(parents) or "–"))
        rows.append((*cells, num(size, 2), num(_seconds(manifest), 1)))
    heads = ("artifact", "fingerprint", "stage", "made from", "size (MB)", "seconds")
    return Table(
        "artifacts",
        heads,
        tuple(rows),
        f"All {len(rows)} artifacts behind this page, each after what it was made from.",
        folded=True,
    )
