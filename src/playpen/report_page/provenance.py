"""Where the numbers come from: costs by stage, artifacts, and how to make them again."""

from collections.abc import Mapping
from typing import Any

from playpen.report_page.layout import Cell, Lines, Section, Table, count, num
from playpen.report_page.sources import strings_in

Manifests = Mapping[str, dict[str, Any]]


def cost_table(manifests: Manifests) -> Table:
    """Return seconds, memory, tokens and rows by stage, the dearest first."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for manifest in manifests.values():
        kinds.setdefault(manifest["kind"], []).append(manifest)
    spent = {kind: sum(_seconds(manifest) for manifest in found) for kind, found in kinds.items()}
    most = max(spent.values(), default=0.0) or 1.0
    rows = tuple(_cost_row(kind, kinds[kind], spent[kind], most) for kind in sorted(spent, key=lambda kind: -spent[kind]))
    total = (Cell("all together"), count(len(manifests)), num(sum(spent.values()), 1), *[Cell("")] * 4)
    note = (
        "Wall-clock seconds on the machine below, start-up of each stage included. Memory: the most that the process held while the stage "
        "ran, in GB, of its dearest run. Tokens and rows where a stage tells them."
    )
    heads = ("stage", "runs", "seconds", "peak memory", "tokens", "rows", "seconds per 1,000 rows")
    return Table("costs", heads, (*rows, total), note, "all together")


def _cost_row(kind: str, found: list[dict[str, Any]], seconds: float, most: float) -> tuple[Cell, ...]:
    tokens, rows = (_total(found, name) for name in ("tokens", "rows"))
    each = 1000 * seconds / rows if rows else None
    held = max((manifest["provenance"].get("peak_memory") or 0 for manifest in found), default=0) / 1e9 or None
    spent = (num(seconds, 1, bar=seconds / most), num(held, 2))
    return (Cell(kind), count(len(found)), *spent, count(tokens), count(rows), num(each, 2))


def _seconds(manifest: dict[str, Any]) -> float:
    return float(manifest["provenance"].get("seconds") or 0.0)


def _total(found: list[dict[str, Any]], name: str) -> float | None:
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
