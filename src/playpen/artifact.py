"""Artifacts: directories with a `manifest.json` that is written last. Present means finished.

Unfinished work lies in `<name>-<fingerprint>.part`; sealing hashes its files, writes the manifest and renames it.
"""

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from playpen.config import PlaypenError, leaves
from playpen.tables import read_metrics, write_json

FORMAT = 1
MANIFEST = "manifest.json"
PACKAGES = (
    "playpen",
    "torch",
    "transformers",
    "datasets",
    "peft",
    "trl",
    "bergson",
    "sae-lens",
    "chromadb",
    "sentence-transformers",
    "lm-eval",
    "numpy",
    "scikit-learn",
)


def fingerprint(kind: str, version: int, config: Any) -> str:
    """Return 8 hex digits of sha256 over the canonical JSON of kind, version and config (inputs by fingerprint)."""
    text = json.dumps(
        {"kind": kind, "version": version, "config": config}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def digest(path: str) -> str:
    """Return the sha256 of a file, or of a directory's relative paths and contents; read again only after a change."""
    where = Path(path).expanduser()
    if where.is_file():
        state = where.stat()
        return _digest(where, state.st_size, state.st_mtime_ns)
    if not where.is_dir():
        raise PlaypenError(f"there is no file or directory at {where}")
    total = hashlib.sha256()
    for file in sorted(p for p in where.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(where)}\0{digest(str(file))}\n".encode())
    return total.hexdigest()


@cache
def _digest(file: Path, size: int, changed: int) -> str:
    return digest_now(file)


def read_manifest(artifact: Path | str) -> dict[str, Any]:
    """Read the manifest of a finished artifact; say it if there is none or it is unfinished."""
    where = Path(artifact)
    file = where / MANIFEST
    if not file.exists():
        part = where.with_name(where.name + ".part")
        what = (
            "is unfinished (interrupted, or still being made): run its plan again"
            if part.exists()
            else "is not an artifact: it has no manifest.json"
        )
        raise PlaypenError(f"{where} {what}")
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise PlaypenError(f"{file} is not readable JSON ({error}); delete the artifact and run again") from None
    if found.get("format") != FORMAT or "fingerprint" not in found:
        raise PlaypenError(f"{file} is not the manifest of an artifact")
    return found


def find_artifact(path: str) -> Path:
    """Return the artifact at `path`, where the last part may also be an entry's name in a plan that ran there."""
    where, named = Path(path).expanduser(), dict[str, str]()
    index = where.parent / MANIFEST
    if not where.exists() and index.exists():
        named = json.loads(index.read_text()).get("entries", {})
        if where.name in named:
            where = where.parent / named[where.name]
    if not (where.exists() or where.with_name(where.name + ".part").exists()):
        raise PlaypenError(f"{where} is not an artifact: nothing is there{_near(where, named)}")
    read_manifest(where)
    return where


def _near(where: Path, named: dict[str, str]) -> str:
    """Return a hint that names the finished artifact beside a missing one whose name is the nearest, by its entry if it has one."""
    there = {file.parent.name for file in where.parent.glob(f"*/{MANIFEST}")}
    named = {name: directory for name, directory in named.items() if directory in there}
    near = get_close_matches(where.name, [*named, *(there - set(named.values()))], n=1)
    return f"; did you mean {where.parent / near[0]}?" if near else ""


def check_free(final: Path) -> None:
    """Raise when something lies where an artifact is to be made."""
    if final.exists():
        raise PlaypenError(f"{final} is there without a {MANIFEST}, so it is not known to be whole; delete it and run again")


def seal(part: Path, final: Path, identity: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Write the manifest of finished work, last, and give it its name."""
    files = {
        str(file.relative_to(part)): [file.stat().st_size, digest_now(file)]
        for file in sorted(part.rglob("*"))
        if file.is_file() and file != part / MANIFEST
    }
    write_json(
        part / MANIFEST, {"format": FORMAT, **identity, "metrics": read_metrics(part), "files": files, "provenance": provenance}
    )
    part.rename(final)


def digest_now(file: Path) -> str:
    """Return the sha256 of a file by reading it, past the memory of `digest`."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def verify(artifact: Path) -> list[str]:
    """Hash the files of an artifact again; return one line for each that is missing, changed or unknown."""
    files = read_manifest(artifact)["files"]
    present = {str(f.relative_to(artifact)) for f in artifact.rglob("*") if f.is_file() and f != artifact / MANIFEST}
    wrong = [f"{name}: missing" for name in files if name not in present]
    wrong += [f"{name}: changed" for name, (_, sha) in files.items() if name in present and digest_now(artifact / name) != sha]
    return wrong + [f"{name}: not in the manifest" for name in sorted(present - set(files))]


def provenance(started: float, machine: Any, command: str, peak: int | None = None) -> dict[str, Any]:
    """Return who made an artifact: commit, command, package versions, machine, seconds and the most bytes held while it was made."""
    return {
        "commit": commit(),
        "command": command,
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "host": {"system": platform.platform(), "cores": os.cpu_count(), "gpu": _gpu()},
        "machine": machine,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        "peak_memory": peak,
    }


def _gpu() -> str | None:
    """Return the name of the GPU in use; None when this process has touched none."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_initialized() else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the commit of the source tree that runs, with `+dirty` when it was edited.

    Outside a checkout it is what PLAYPEN_COMMIT says, which a job on another machine is given, or None.
    """
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists():
        return os.environ.get("PLAYPEN_COMMIT") or None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+dirty" if status.stdout else "")


def command_line() -> str:
    """Return the command that started this process, without the path of the interpreter."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def artifacts_in(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield (path, manifest) of every finished artifact below `root`, oldest first."""
    found = []
    for file in root.glob("**/" + MANIFEST):
        if re.search(r"-[0-9a-f]{8}$", file.parent.name):
            found.append((file.parent, read_manifest(file.parent), file.stat().st_mtime_ns))
    for path, manifest, _ in sorted(found, key=lambda item: (item[1]["provenance"]["started"], item[2])):  # seconds are coarse
        yield path, manifest


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return one line, `field: old -> new`, for each field in which two manifests' identities differ."""
    old = dict(leaves({"kind": before["kind"], "version": before["version"], **before["config"]}))
    new = dict(leaves({"kind": after["kind"], "version": after["version"], **after["config"]}))
    keys = list(dict.fromkeys([*old, *new]))
    return [
        f"{key}: {old.get(key, '(unset)')} -> {new.get(key, '(unset)')}" for key in keys if old.get(key, "") != new.get(key, "")
    ]
