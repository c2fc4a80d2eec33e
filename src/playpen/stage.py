"""Stages and plans: from named configs to artifacts, making only what is missing.

A stage is a module of `playpen.stages` with `Config`, `VERSION` and `run(config, out, machine)`. It may say
`RESUMABLE = True` (unfinished work under `out` is kept and gone on with), `DISTRIBUTED = True` (it may run under
torchrun) and `STAYS = True` (it works on what lies beside the artifacts, so that no launcher takes it elsewhere). A plan is an ordered mapping of names to configs; `run_plan` makes what is missing, in that order.
"""

import ast
import errno
import importlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from playpen import artifact, hub, processes, resident_memory
from playpen.config import PlaypenError, did_you_mean, inputs_of, make_config, map_files, map_inputs, pin_hub, to_plain
from playpen.machine import Machine
from playpen.tables import UNFINISHED, running_stage, write_json

STAGES = Path(__file__).parent / "stages"
FULL = os.strerror(errno.ENOSPC)
T = TypeVar("T")
SHOWN = 5
"""Reasons for dropped rows that are told when an artifact is made, the commonest first."""
REQUIRED = "REQUIRED"
"""The value in a preset that the user must set."""


@dataclass(frozen=True)
class Entry:
    """One named config of a plan, with its identity."""

    name: str
    kind: str
    config: Any
    fingerprint: str
    identity: dict[str, Any]

    @property
    def directory(self) -> str:
        """The name of its artifact."""
        return f"{self.name}-{self.fingerprint}"


def stage_kinds() -> dict[str, str]:
    """Return the verbs and their one-line help, read from the files without importing them."""
    found = {}
    for file in sorted(STAGES.glob("*.py")):
        if not file.name.startswith("_"):
            doc = ast.get_docstring(ast.parse(file.read_text())) or ""
            found[file.stem.replace("_", "-")] = doc.split("\n")[0]
    return found


def load_stage(kind: str, where: str = "plan") -> ModuleType:
    """Import the module of a verb."""
    if not (STAGES / f"{kind.replace('-', '_')}.py").is_file():
        raise PlaypenError(f"{where}: there is no stage '{kind}'{did_you_mean(kind, list(stage_kinds()))}")
    return importlib.import_module(f"playpen.stages.{kind.replace('-', '_')}")


def make_plan(spec: dict[str, Any]) -> dict[str, Entry]:
    """Turn a mapping of names to plain configs into a plan; every mistake is one line that names the entry."""
    plan: dict[str, Entry] = {}
    for name, values in spec.items():
        if not isinstance(values, dict) or "kind" not in values:
            raise PlaypenError(f"entry '{name}' must be a mapping with a 'kind', found {values!r}")
        if "/" in name or not name:
            raise PlaypenError(f"entry '{name}': a name may not be empty or hold a slash")
        _check_required(values, name)
        module = load_stage(str(values["kind"]), f"entry '{name}'")
        cfg = make_config(module.Config, {k: v for k, v in values.items() if k != "kind"}, f"entry '{name}'")
        plan[name] = make_entry(name, str(values["kind"]), cfg, plan, spec)
    return plan


def make_entry(name: str, kind: str, cfg: Any, plan: dict[str, Entry], spec: dict[str, Any]) -> Entry:
    """Give a config its identity: inputs count by their fingerprints, files by their content."""

    def identify(value: str) -> str:
        if "/" in value:
            return _named(name, lambda: artifact.read_manifest(artifact.find_artifact(value))["fingerprint"])
        if value in plan:
            return plan[value].fingerprint
        known = f"earlier entries: {', '.join(plan) or 'none'}; a path must hold a slash"
        raise PlaypenError(
            f"entry '{name}': '{value}' " + ("comes later; move it up" if value in spec else "is not an entry") + f" ({known})"
        )

    cfg = _named(name, lambda: pin_hub(cfg, hub.pin))  # type: ignore[arg-type]
    identified = map_inputs(cfg, identify)
    plain = _named(name, lambda: to_plain(map_files(identified, artifact.digest)))
    version = load_stage(kind).VERSION
    mark = artifact.fingerprint(kind, version, plain)
    return Entry(name, kind, cfg, mark, {"name": name, "kind": kind, "version": version, "fingerprint": mark, "config": plain})


def _named(name: str, work: Callable[[], T]) -> T:
    """Do `work`; a mistake in it is told with the name of the entry it is in."""
    try:
        return work()
    except PlaypenError as error:
        raise PlaypenError(f"entry '{name}': {error}") from None


def _check_required(value: Any, place: str) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if item == REQUIRED:
            raise PlaypenError(f"this preset asks you for {place}.{key}: add --set {place}.{key}=...")
        _check_required(item, f"{place}.{key}")


def resolve(entry: Entry, plan: dict[str, Entry], root: Path) -> Any:
    """Return the entry's config with every input replaced by the absolute path of its artifact, and every file by its own."""
    found = map_files(entry.config, lambda v: str(Path(v).expanduser().resolve()))
    return map_inputs(found, lambda v: str((artifact.find_artifact(v) if "/" in v else root / plan[v].directory).resolve()))


def run_plan(
    plan: dict[str, Entry], root: Path, machine: Machine, say: Callable[[str], None] = print, dry_run: bool = False
) -> dict[str, Path]:
    """Make what is missing, in order; processes that run the same plan share the work. Returns the artifacts' paths."""
    there = {name: (root / e.directory / artifact.MANIFEST).exists() for name, e in plan.items()}
    for name, entry in plan.items():
        say(f"  {'there' if there[name] else 'to do':6} {entry.directory:32} {entry.kind}")
    todo = [name for name in plan if not there[name]]
    if dry_run:
        if todo and machine.launcher != "here":
            _elsewhere().tell_jobs(todo, plan, root, machine, say)
        return {name: root / e.directory for name, e in plan.items()}
    root.mkdir(parents=True, exist_ok=True)
    _write_index(plan, root)
    total, started = len(todo), time.time()
    while todo:
        if machine.launcher != "here" and (away := _elsewhere().leaving(todo, plan, root)):
            try:
                _elsewhere().launch(away, plan, root, machine, say)
            finally:
                _write_index(plan, root)
            todo = [name for name in todo if name not in away]
            continue
        name = _next(todo, plan, root)
        if name is None:
            time.sleep(0.3)  # every entry that could be made is in another process's hands
            continue
        todo.remove(name)
        _make(plan[name], plan, root, machine, say)
        _write_index(plan, root)
        say(
            f"  [{total - len(todo)}/{total}] {plan[name].directory} is there; {time.time() - started:.0f} s so far, {len(todo)} to do"
        )
        tell_dropped(root / plan[name].directory, say)
    return {name: root / e.directory for name, e in plan.items()}


def tell_dropped(made: Path, say: Callable[[str], None]) -> None:
    """Say which rows an artifact was made without, and why, where its numbers tell it."""
    dropped = artifact.read_manifest(made)["metrics"].get("dropped")
    if isinstance(dropped, dict) and dropped:
        commonest = sorted(dropped.items(), key=lambda item: -item[1])
        reasons = [f"{reason} ({count})" for reason, count in commonest[:SHOWN]] + ["..."] * (len(dropped) > SHOWN)
        say(f"    dropped {sum(dropped.values())}: {', '.join(reasons)}; each is in its table 'dropped'")


def _elsewhere() -> ModuleType:
    return importlib.import_module("playpen.cloud.launch")


def _write_index(plan: dict[str, Entry], root: Path) -> None:
    """Write the run's own manifest, which names each entry's artifact; entries of earlier plans there are kept.

    A name stays with a finished artifact until another of that name is finished, so that a plan that fails takes none away.
    """

    def there(directory: str) -> bool:
        return (root / directory / artifact.MANIFEST).exists()

    file = root / artifact.MANIFEST
    with FileLock(lock_file("manifest", root)):
        before = json.loads(file.read_text()).get("entries", {}) if file.exists() else {}
        fresh = {
            name: e.directory for name, e in plan.items() if there(e.directory) or not (name in before and there(before[name]))
        }
        write_json(file, {"entries": {**before, **fresh}, "command": artifact.command_line()})


def _next(todo: list[str], plan: dict[str, Entry], root: Path) -> str | None:
    """Return the first entry to do whose inputs are there and which no other process holds."""
    for name in todo:
        if is_ready(plan[name], plan, root) and not _is_locked(lock_file(plan[name].directory, root)):
            return name
    return None


def is_ready(entry: Entry, plan: dict[str, Entry], root: Path) -> bool:
    """Say whether the artifacts that an entry needs are there."""
    inputs = [v for v in inputs_of(entry.config) if "/" not in v]
    return all((root / plan[v].directory / artifact.MANIFEST).exists() for v in inputs)


def lock_file(name: str, root: Path) -> Path:
    """Return the file that whoever makes what is called so in a root holds locked."""
    folder = root / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.lock"


def _is_locked(file: Path) -> bool:
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True


def _make(entry: Entry, plan: dict[str, Entry], root: Path, machine: Machine, say: Callable[[str], None]) -> None:
    """Make one artifact under its lock, unless another process was quicker."""
    final = root / entry.directory
    with FileLock(lock_file(entry.directory, root)):
        if not (final / artifact.MANIFEST).exists():
            say(f"  making {entry.directory} ({entry.kind})")
            make_artifact(entry, resolve(entry, plan, root), final, machine)


def make_artifact(entry: Entry, cfg: Any, final: Path, machine: Machine) -> None:
    """Run a stage into `<final>.part` and seal it."""
    module, part, started = load_stage(entry.kind), final.with_name(final.name + ".part"), time.time()
    artifact.check_free(final)
    if part.exists() and not getattr(module, "RESUMABLE", False):
        shutil.rmtree(part)
    part.mkdir(parents=True, exist_ok=True)
    for left in part.rglob("*" + UNFINISHED):
        left.unlink()
    counted = resident_memory.start_peak()
    try:
        if elsewhere := machine.processes > 1 and getattr(module, "DISTRIBUTED", False):
            _torchrun(entry.kind, cfg, part, machine)
        else:
            run_stage(entry.kind, cfg, part, machine)
        held = resident_memory.peak() if counted and not elsewhere else None
        artifact.seal(part, final, entry.identity, artifact.provenance(started, machine.plain(), artifact.command_line(), held))
    except Exception as error:
        with suppress(OSError):
            part.rmdir()  # nothing was done, as when an input is refused
        full = shutil.disk_usage(part.parent).free < 1 << 20
        if (
            full or FULL in str(error) or FULL in str(error.__context__)
        ):  # libraries wrap the operating system's error in their own
            raise PlaypenError(
                f"{entry.directory}: the disk of {part.parent} is full; free room and run again, nothing finished is lost"
            ) from error
        raise


def run_stage(kind: str, cfg: Any, out: Path, machine: Machine) -> None:
    """Run a stage in this process, known to `tables` by its verb."""
    token = running_stage.set(kind)
    try:
        load_stage(kind).run(cfg, out, machine)
    finally:
        running_stage.reset(token)


def _torchrun(kind: str, cfg: Any, part: Path, machine: Machine) -> None:
    """Start a stage on `machine.processes` processes of this host; the call lies beside the unfinished work."""
    call = part.with_name(part.name + ".call.json")
    told = {"kind": kind, "config": to_plain(cfg), "out": str(part.resolve()), "machine": asdict(machine)}
    call.write_text(json.dumps(told))  # unsorted: models and arms keep the order that the user gave them
    try:
        processes.torchrun(kind, call, machine.processes)
    finally:
        call.unlink(missing_ok=True)


def run_call(file: Path) -> None:
    """Run the call that another process wrote: a stage, alone or as one of torchrun's processes, or the entries of a plan."""
    with processes.telling_once(file):
        call = json.loads(file.read_text())
        if "entries" in call:
            _run_entries(call, str(file))
            return
        cfg = make_config(load_stage(call["kind"]).Config, call["config"], str(file))
        machine = make_config(Machine, call["machine"], str(file))
        with processes.group(machine):
            run_stage(call["kind"], cfg, Path(call["out"]), machine)


def _run_entries(call: dict[str, Any], where: str) -> None:
    """Make the entries of a call in the working directory, if they are here what they were where it was written."""
    plan = make_plan(call["entries"])
    for entry, asked in zip(plan.values(), call["directories"], strict=True):
        if entry.directory != asked:
            raise PlaypenError(
                f"{where}: {asked} was asked for, but here it is {entry.directory}: an input or the version differs"
            )
    run_plan(plan, Path(), make_config(Machine, call["machine"], where))
