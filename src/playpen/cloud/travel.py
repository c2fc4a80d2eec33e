"""What a plan needs to be made elsewhere: its entries as plain data, and the artifacts and files that go along.

Elsewhere, the root is mirrored: everything lies under the same path relative to it, so that what one artifact says of another holds
there and here. Files of the user's go to `.files/` in it.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playpen import artifact
from playpen.config import PlaypenError, map_files, map_inputs, to_plain
from playpen.models import written_parts

if TYPE_CHECKING:
    from playpen.machine import Machine
    from playpen.stage import Entry

FILES = ".files"
"""Where files of the user's lie in the mirrored root."""


@dataclass(frozen=True)
class Travel:
    """Entries to be made elsewhere, and what they need there."""

    call: dict[str, Any]
    """What `playpen exec` reads: the entries, the names of their artifacts, fingerprints and all, and the machine."""
    inputs: dict[str, Path]
    """Files and directories here, by their path relative to the mirrored root."""


def pack(names: list[str], plan: dict[str, "Entry"], root: Path, machine: "Machine") -> Travel:
    """Return what some entries of a plan need to be made elsewhere.

    Raises PlaypenError for an input that lies outside `root`, or that names another one by a full path: elsewhere neither is there.
    """
    inputs: dict[str, Path] = {}

    def artifact_there(value: str) -> str:
        if value in names:
            return value
        path = artifact.find_artifact(value) if "/" in value else root / plan[value].directory
        _add_artifact(path, root, inputs)
        return f"./{_relative(path, root)}"

    def file_there(value: str) -> str:
        path = Path(value).expanduser().resolve()
        place = f"{FILES}/{hashlib.sha256(str(path).encode()).hexdigest()[:16]}/{path.name}"
        inputs[place] = path
        return f"./{place}"

    entries = {}
    for name in names:
        cfg = map_files(map_inputs(plan[name].config, artifact_there), file_there)
        entries[name] = {"kind": plan[name].kind, **to_plain(cfg)}
    there = asdict(replace(machine, launcher="here", sagemaker=type(machine.sagemaker)()))
    call = {"entries": entries, "directories": [plan[name].directory for name in names], "machine": there}
    return Travel(call, inputs)


def _relative(path: Path, root: Path) -> str:
    there, home = path.resolve(), root.resolve()
    if not there.is_relative_to(home):
        raise PlaypenError(f"{path} lies outside {root}, which is all that is mirrored elsewhere; give a --root above both")
    return there.relative_to(home).as_posix()


def _add_artifact(path: Path, root: Path, inputs: dict[str, Path]) -> None:
    """Add an artifact and, of a model, those that hold its parts."""
    place = _relative(path, root)
    if place in inputs:
        return
    inputs[place] = path
    for part in written_parts(path):
        if part.is_absolute():
            raise PlaypenError(
                f"{path} refers to {part} by its full path, which is not there elsewhere; make it anew under a --root above both"
            )
        home = _artifact_of((path / part).resolve())
        if home != path.resolve():
            _add_artifact(home, root, inputs)


def _artifact_of(path: Path) -> Path:
    """Return the artifact that a path lies in."""
    found = next((folder for folder in (path, *path.parents) if (folder / artifact.MANIFEST).exists()), None)
    if found is None:
        raise PlaypenError(f"{path} lies in no artifact")
    return found


def check_arrival(place: Path, fingerprint: str) -> None:
    """Raise PlaypenError unless what has come back is the artifact that was asked for, with files as its manifest says."""
    if (found := artifact.read_manifest(place)["fingerprint"]) != fingerprint:
        raise PlaypenError(f"{place.name} came back with the fingerprint {found}, expected {fingerprint}")
    if wrong := artifact.verify(place):
        raise PlaypenError(f"{place.name} did not come back whole: {'; '.join(wrong[:3])}; run again")
