"""The command line: one verb a stage, and a few that work on plans and artifacts. Imports nothing heavy by itself."""

import errno
import json
import os
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
import yaml
from pydantic import ValidationError

from playpen import artifact
from playpen.config import Input, PlaypenError, did_you_mean, explain, inputs_of
from playpen.flag_errors import parsed
from playpen.machine import Machine
from playpen.stage import load_stage, make_entry, make_plan, run_call, run_plan, stage_kinds

T = TypeVar("T")
PRESETS = Path(__file__).parent / "presets"
COMMANDS = {
    "run": "Run a preset: make what is missing, in the order of its file.",
    "presets": "List the presets, or print one to copy and edit.",
    "ls": "List artifacts, and how each differs from the one before of its name.",
    "show": "Show an artifact's manifest; --verify hashes its files again.",
    "serve": "Serve a feature dashboard on this machine, so that its page can look at a text.",
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
        {"run": _run, "presets": _presets, "ls": _ls, "show": _show, "serve": _serve}[args[0]](args[1:])
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


def _parse(cls: type[T], args: list[str], verb: str, text: str) -> T:
    """Read flags into `cls`; --help starts with `text` as it stands, because the parser would join its lines."""
    if "-h" in args or "--help" in args:
        print(text.strip() + "\n")
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")

    def parse(args: list[str]) -> T:
        return tyro.cli(cls, args=args, prog=f"playpen {verb}", description="", config=(tyro.conf.OmitSubcommandPrefixes,))

    try:
        return parsed(parse, args, verb)
    except ValidationError as error:  # of a check over several fields, which the parser lets through
        raise PlaypenError(f"{verb}: {explain(cls, error)}") from None


def preset_file(name: str) -> Path:
    """Return the file of a preset's name or of a YAML file's path."""
    there = sorted(p.stem for p in PRESETS.glob("*.yaml"))
    file = PRESETS / f"{name}.yaml" if name in there else Path(name)
    if not file.is_file():
        raise PlaypenError(f"there is no preset or YAML file '{name}'{did_you_mean(name, there)}")
    return file


class UniqueLoader(yaml.SafeLoader):
    """YAML as plain data, where a name that stands twice is an error: YAML itself lets the last one win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the name '{double}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_preset(name: str) -> tuple[str, dict[str, Any]]:
    """Return (name, plan as plain data) of a preset's name or of a YAML file's path."""
    file = preset_file(name)
    try:
        spec = yaml.load(file.read_text(), UniqueLoader)
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
    entry = path.split(".")[0]
    if not parents or entry not in spec:
        raise PlaypenError(
            f"--set {path}: "
            + (
                "name a field too, as entry.field=value"
                if entry in spec
                else f"there is no entry '{entry}'{did_you_mean(entry, list(spec))}"
            )
        )
    place: Any = spec
    for part in parents:
        key = _key(place, part, path)
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        if not isinstance(place, dict | list):
            raise PlaypenError(f"--set {path}: '{part}' holds {place!r}, which has no fields")
    place[_key(place, last, path)] = _read_value(path, text)


def _key(place: dict[str, Any] | list[Any], part: str, path: str) -> Any:
    """Return one part of a path as what `place` is indexed by."""
    if isinstance(place, dict):
        return part
    if not (part.isdigit() and int(part) < len(place)):
        raise PlaypenError(f"--set {path}: '{part}' should count one of {len(place)} items, from 0")
    return int(part)


def _read_value(path: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise PlaypenError(f"--set {path}: '{text}' is not YAML; quote it, or close what it opens") from None


@dataclass(frozen=True)
class RunArguments:
    """What `playpen run` takes."""

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """Name of a preset (`playpen presets`) or path of a YAML file."""
    set: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="A.B=C ...")] = ()
    """Changes of the preset, as `--set top.method.k=100 data.seed=1`; a number in a path counts the items of a list."""
    root: tyro.conf.DisallowNone[Path | None] = None
    """Directory of the artifacts; runs/<preset> when left out."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only say what is there, what is to do and, with a launcher, what would be sent."""
    machine: Machine = Machine()
    """Where and how to run; changes no artifact's name."""


def _run(args: list[str]) -> None:
    call = _parse(RunArguments, args, "run", COMMANDS["run"])
    name, spec = load_preset(call.preset)
    for setting in chain.from_iterable(call.set):
        apply_setting(spec, setting)
    plan, root = make_plan(spec), call.root or Path("runs") / name
    print(f"{name}: {len(plan)} entries in {root}")
    made = run_plan(plan, root, call.machine, dry_run=call.dry_run)
    _tell_summary(list(made.values())[-1])


def _tell_summary(made: Path) -> None:
    """Print what an artifact says of itself, if it does."""
    if (made / "summary.txt").exists():
        print("\n" + (made / "summary.txt").read_text().format(path=made))


@dataclass(frozen=True)
class Place:
    """Where the artifact goes."""

    name: tyro.conf.DisallowNone[str | None] = None
    """Name of the artifact; the verb when left out."""
    root: Path = Path("runs")
    """Directory that the artifact is made in, as <name>-<fingerprint>."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only say whether it is there and, with a launcher, what would be sent."""


def _stage_arguments(config_class: Any) -> Any:
    """Return the arguments of one stage: the fields of its config, then where the artifact goes, then the machine."""

    @dataclass(frozen=True)
    class StageArguments:
        config: Annotated[config_class, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        """What is wanted."""
        artifact: tyro.conf.OmitArgPrefixes[Place] = Place()
        """Where the artifact goes."""
        machine: Machine = Machine()
        """Where and how to run; changes no artifact's name."""

    return StageArguments


def _run_one(kind: str, args: list[str]) -> None:
    module = load_stage(kind)
    call: Any = _parse(_stage_arguments(module.Config), args, kind, module.__doc__ or "")
    for value in inputs_of(call.config):
        if "/" not in value:
            raise PlaypenError(f"'{value}' names no artifact: give its path, as runs/demo/{value} (entry names are for presets)")
    entry = make_entry(call.artifact.name or kind, kind, call.config, {}, {})
    made = run_plan({entry.name: entry}, call.artifact.root, call.machine, dry_run=call.artifact.dry_run)
    print(made[entry.name])
    _tell_summary(made[entry.name])


@dataclass(frozen=True)
class PresetsArguments:
    """What `playpen presets` takes."""

    preset: Annotated[str | None, tyro.conf.Positional, tyro.conf.DisallowNone, tyro.conf.arg(metavar="PRESET")] = None
    """The preset to print; all are listed when left out."""


def _presets(args: list[str]) -> None:
    name = _parse(PresetsArguments, args, "presets", COMMANDS["presets"]).preset
    if name is not None:
        print(preset_file(name).read_text(), end="")
        return
    for file in sorted(PRESETS.glob("*.yaml")):
        print(f"  {file.stem:16} {file.read_text().splitlines()[0].lstrip('# ')}")


@dataclass(frozen=True)
class ListArguments:
    """What `playpen ls` takes."""

    directory: tyro.conf.Positional[Path] = Path("runs")
    """Where to look, at any depth."""


def _ls(args: list[str]) -> None:
    root = _parse(ListArguments, args, "ls", COMMANDS["ls"]).directory
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

    path: tyro.conf.Positional[Input]
    """Path of an artifact, as runs/demo/scores-1a2b3c4d or runs/demo/scores."""
    verify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Hash its files again and say which differ; exit status 2 if any does."""


def _show(args: list[str]) -> None:
    call = _parse(ShowArguments, args, "show", COMMANDS["show"])
    path = artifact.find_artifact(call.path)
    if call.verify:
        wrong = artifact.verify(path)
        if wrong:
            raise PlaypenError(f"{path}: " + "; ".join(wrong))
        print(f"{path}: all {len(artifact.read_manifest(path)['files'])} files are as they were made")
        return
    print(json.dumps(artifact.read_manifest(path), indent=2))


@dataclass(frozen=True)
class ServeArguments:
    """What `playpen serve` takes."""

    path: tyro.conf.Positional[Input]
    """Path of an artifact of features, as runs/mine/features."""
    port: int = 0
    """Port on 127.0.0.1; 0 takes a free one."""
    machine: Machine = Machine()
    """Where the model runs."""


def _serve(args: list[str]) -> None:
    from playpen.dashboard.server import serve

    call = _parse(ServeArguments, args, "serve", COMMANDS["serve"])
    serve(artifact.find_artifact(call.path), call.port, call.machine)


if __name__ == "__main__":
    main()
