"""The command line: one verb a stage, and a few that work on plans and artifacts. Imports nothing heavy by itself."""

import errno
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml

from playpen import artifact
from playpen.config import PlaypenError, did_you_mean, inputs_of
from playpen.machine import Machine
from playpen.stage import load_stage, make_entry, make_plan, run_call, run_plan, stage_kinds

PRESETS = Path(__file__).parent / "presets"
COMMANDS = {
    "run": "Run a preset: make what is missing, in the order of its file.",
    "presets": "List the presets, or print one to copy and edit.",
    "ls": "List artifacts, and how each differs from the one before of its name.",
    "show": "Show an artifact's manifest; --verify hashes its files again.",
}


def main(argv: list[str] | None = None) -> None:
    """Run one command. A mistake of the user's is one line and exit status 2; a traceback is a bug of ours."""
    args = sys.argv[1:] if argv is None else argv
    try:
        _dispatch(args)
    except PlaypenError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("stopped; what is finished is kept, and the same command goes on from there", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise
        _fail(f"{error.filename or 'writing'}: {error.strerror}; nothing finished is lost")


def _fail(message: str, status: int = 2) -> None:
    print(f"playpen: {message}", file=sys.stderr)
    raise SystemExit(status)


def _dispatch(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
    elif args[0] == "--version":
        from importlib.metadata import version

        print(version("playpen"))
    elif args[0] == "exec":
        run_call(Path(args[1]))
    elif args[0] in COMMANDS:
        {"run": _run, "presets": _presets, "ls": _ls, "show": _show}[args[0]](args[1:])
    elif args[0] in stage_kinds():
        _run_one(args[0], args[1:])
    else:
        known = [*COMMANDS, *stage_kinds()]
        raise PlaypenError(f"there is no command '{args[0]}'{did_you_mean(args[0], known)}")


def overview() -> str:
    """Return the text of `playpen --help`."""
    rows = [f"  {name:16} {text}" for name, text in COMMANDS.items()]
    verbs = [f"  {name:16} {text}" for name, text in stage_kinds().items()]
    head = "usage: playpen COMMAND ...        playpen COMMAND --help shows what a command takes\n"
    return "\n".join([head, "whole experiments", *rows, "", "one stage alone", *verbs])


def _parse(cls: Any, args: list[str], prog: str, text: str) -> Any:
    import tyro

    return tyro.cli(cls, args=args, prog=f"playpen {prog}", description=text, config=(tyro.conf.OmitSubcommandPrefixes,))


def load_preset(name: str) -> tuple[str, dict[str, Any]]:
    """Return (name, plan as plain data) of a preset's name or of a YAML file's path."""
    there = sorted(p.stem for p in PRESETS.glob("*.yaml"))
    file = PRESETS / f"{name}.yaml" if name in there else Path(name)
    if not file.is_file():
        raise PlaypenError(f"there is no preset or YAML file '{name}'{did_you_mean(name, there)}")
    try:
        spec = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise PlaypenError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(spec, dict) or not spec:
        raise PlaypenError(f"{file} must hold a mapping of names to configs, found {type(spec).__name__}")
    return file.stem, spec


def apply_setting(spec: dict[str, Any], setting: str) -> None:
    """Apply one `a.b=c` to plain data, in place; the value is read as YAML, a number in the path counts list items."""
    path, sep, text = setting.partition("=")
    if not sep or not path:
        raise PlaypenError(f"--set takes a.b=c, found '{setting}'")
    *parents, last = path.split(".")
    if len(parents) == 0 or parents[0] not in spec:
        raise PlaypenError(
            f"--set {path}: there is no entry '{(parents or [last])[0]}'{did_you_mean((parents or [last])[0], list(spec))}"
        )
    place: Any = spec
    for part in parents:
        if isinstance(place, list) and not (part.isdigit() and int(part) < len(place)):
            raise PlaypenError(f"--set {path}: '{part}' should count one of {len(place)} items, from 0")
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise PlaypenError(f"--set {path}: '{part}' holds {place!r}, which has no fields")
    value = yaml.safe_load(text)
    if isinstance(place, list):
        if not (last.isdigit() and int(last) < len(place)):
            raise PlaypenError(f"--set {path}: '{last}' should count one of {len(place)} items, from 0")
        place[int(last)] = value
    else:
        place[last] = value


@dataclass(frozen=True)
class RunArguments:
    """What `playpen run` takes."""

    preset: Annotated[str, "positional"]
    """Name of a preset (`playpen presets`) or path of a YAML file."""
    set: tuple[str, ...] = ()
    """Changes of the preset, a.b=c each, as `--set top.method.k=100 data.seed=1`."""
    root: Path | None = None
    """Directory of the artifacts; runs/<preset> when left out."""
    dry_run: bool = False
    """Only say what is there and what is to do."""
    machine: Machine = Machine()
    """Where and how to run."""


def _run(args: list[str]) -> None:
    import tyro

    class_ = tyro.conf.configure()(RunArguments)
    call = _parse(_positional(class_, "preset"), _collect_sets(args), "run", COMMANDS["run"])
    name, spec = load_preset(call.preset)
    for setting in call.set:
        apply_setting(spec, setting)
    plan, root = make_plan(spec), call.root or Path("runs") / name
    print(f"{name}: {len(plan)} entries in {root}")
    made = run_plan(plan, root, call.machine, dry_run=call.dry_run)
    summary = list(made.values())[-1] / "summary.txt"
    if summary.exists():
        print("\n" + summary.read_text().format(path=summary.parent))


def _collect_sets(args: list[str]) -> list[str]:
    """Gather repeated `--set x` into one, because the parser keeps the last only."""
    rest: list[str] = []
    found: list[str] = []
    queue = list(args)
    while queue:
        item = queue.pop(0)
        if item == "--set":
            while queue and not queue[0].startswith("--"):
                found.append(queue.pop(0))
        elif item.startswith("--set="):
            found.append(item.removeprefix("--set="))
        else:
            rest.append(item)
    return [*rest, "--set", *found] if found else rest


def _run_one(kind: str, args: list[str]) -> None:
    module = load_stage(kind)
    call = _parse(_stage_arguments(module.Config), args, kind, module.__doc__ or "")
    for value in inputs_of(call.config):
        if "/" not in value:
            raise PlaypenError(f"'{value}' names no artifact: give its path, as runs/demo/{value} (entry names are for presets)")
    entry = make_entry(call.name or kind, kind, call.config, {}, {})
    made = run_plan({entry.name: entry}, call.root, call.machine)
    print(made[entry.name])


def _presets(args: list[str]) -> None:
    if args and args[0] not in ("-h", "--help"):
        name = load_preset(args[0])[0]
        file = PRESETS / f"{name}.yaml"
        print((file if file.exists() else Path(args[0])).read_text(), end="")
        return
    for file in sorted(PRESETS.glob("*.yaml")):
        print(f"  {file.stem:16} {file.read_text().splitlines()[0].lstrip('# ')}")


@dataclass(frozen=True)
class ListArguments:
    """What `playpen ls` takes."""

    directory: Path = Path("runs")
    """Where to look, at any depth."""


def _ls(args: list[str]) -> None:
    root = _parse(_positional(ListArguments, "directory"), args, "ls", COMMANDS["ls"]).directory
    if not root.is_dir():
        raise PlaypenError(f"there is no directory {root}")
    before: dict[tuple[Path, str], dict[str, Any]] = {}
    for path, manifest in artifact.artifacts_in(root):
        made = manifest["provenance"]
        size = sum(n for n, _ in manifest["files"].values())
        print(
            f"{path.relative_to(root)!s:40} {manifest['kind']:14} {made['started'][:16]} {made['seconds']:8.1f} s {size / 1e6:9.2f} MB"
        )
        key = (path.parent, manifest["name"])
        for line in artifact.differences(before[key], manifest) if key in before else []:
            print(f"    {line}")
        before[key] = manifest
    if not before:
        print(f"no finished artifact below {root}")


@dataclass(frozen=True)
class ShowArguments:
    """What `playpen show` takes."""

    path: str
    """Path of an artifact, as runs/demo/scores-1a2b3c4d or runs/demo/scores."""
    verify: bool = False
    """Hash its files again and say which differ; exit status 2 if any does."""


def _show(args: list[str]) -> None:
    call = _parse(_positional(ShowArguments, "path"), args, "show", COMMANDS["show"])
    path = artifact.find_artifact(call.path)
    if call.verify:
        wrong = artifact.verify(path)
        if wrong:
            raise PlaypenError(f"{path}: " + "; ".join(wrong))
        print(f"{path}: all {len(artifact.read_manifest(path)['files'])} files are as they were made")
        return
    print(json.dumps(artifact.read_manifest(path), indent=2))


def _positional(cls: Any, field: str) -> Any:
    """Return `cls` for the parser, with one field taken without its flag."""
    import dataclasses

    import tyro

    found = {f.name: f for f in dataclasses.fields(cls)}
    found[field].type = tyro.conf.Positional[found[field].type]  # type: ignore[valid-type]
    cls.__annotations__[field] = found[field].type
    return cls


def _stage_arguments(config_class: Any) -> Any:
    """Return the arguments of one stage: its own fields, then name, root and machine."""
    import tyro

    @dataclass(frozen=True)
    class StageArguments:
        config: tyro.conf.OmitArgPrefixes[config_class]  # type: ignore[valid-type]
        name: str | None = None
        """Name of the artifact; the verb when left out."""
        root: Path = Path("runs")
        """Directory of the artifact."""
        machine: Machine = Machine()
        """Where and how to run."""

    return StageArguments


if __name__ == "__main__":
    main()
