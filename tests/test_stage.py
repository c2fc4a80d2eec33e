"""Plans make what is missing, once, and lose nothing finished; every stage is laid out as the others."""

import ast
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import toy

from playpen import artifact
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.stage import STAGES, load_stage, make_plan, run_plan, stage_kinds, tell_dropped
from playpen.tables import read_metrics, read_truth, running_stage, write_json

VERBS = sorted(stage_kinds())
HEAVY = ("torch", "transformers", "trl", "peft", "bergson", "sae_lens", "lm_eval", "sklearn", "matplotlib", "datasets")


@pytest.fixture
def toys(monkeypatch):
    toy.install(monkeypatch.setattr)


def spec(**changes):
    """Return a plan of four entries, of which `total` depends on `one` and `two`, and `twice` on `total`."""
    entries = {
        "one": {"kind": "write", "number": 1},
        "two": {"kind": "write", "number": 2},
        "total": {"kind": "add", "inputs": ["one", "two"]},
        "twice": {"kind": "add", "inputs": ["total"], "method": {"kind": "sum", "scale": 2}},
    }
    return {name: {**entries[name], **changes.get(name, {})} for name in entries}


def make(plan, root, machine=None):
    return run_plan(make_plan(plan), root, machine or Machine(), say=lambda line: None)


def made(root):
    """Return the entries made so far, in the order of their making."""
    log = root / "made.log"
    return [line[:-9] for line in log.read_text().splitlines()] if log.exists() else []


def test_inputs_reach_a_stage_as_the_paths_of_their_artifacts(toys, tmp_path):
    paths = make(spec(), tmp_path)
    assert read_metrics(paths["twice"]) == {"number": 6}
    assert [path.name for path in paths.values()] == [entry.directory for entry in make_plan(spec()).values()]


def test_a_second_run_makes_nothing(toys, tmp_path):
    make(spec(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*-*/*")}
    make(spec(), tmp_path)
    assert made(tmp_path) == ["one", "two", "total", "twice"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*-*/*")} == before


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ({"two": {"number": 3}}, ["two", "total", "twice"]),
        ({"total": {"lr": 1e-4}}, ["total", "twice"]),
        ({"twice": {"method": {"kind": "mean"}}}, ["twice"]),
    ],
)
def test_a_changed_field_remakes_its_entry_and_what_depends_on_it_alone(toys, tmp_path, change, remade):
    make(spec(), tmp_path)
    make(spec(**change), tmp_path)
    assert made(tmp_path)[4:] == remade


def test_a_name_stays_with_its_finished_artifact_until_another_is_finished(toys, tmp_path):
    plan = {"it": {"kind": "fragile", "number": 1}}
    first = make(plan, tmp_path)["it"]
    (tmp_path / "trouble").write_text("mistake")
    with pytest.raises(PlaypenError, match="the user's mistake"):
        make({"it": {"kind": "fragile", "number": 2}, "new": {"kind": "fragile", "number": 3}}, tmp_path)
    assert artifact.find_artifact(str(tmp_path / "it")) == first
    assert "new" in json.loads((tmp_path / "manifest.json").read_text())["entries"]
    (tmp_path / "trouble").unlink()
    second = make({"it": {"kind": "fragile", "number": 2}}, tmp_path)["it"]
    assert artifact.find_artifact(str(tmp_path / "it")) == second != first


def test_rows_that_an_artifact_was_made_without_are_told_the_commonest_reason_first(tmp_path):
    reasons = {f"reason {i}": i for i in range(1, 7)}
    tiny.write_artifact(tmp_path / "data", "build-data", lambda out: write_json(out / "metrics.json", {"dropped": reasons}))
    tiny.write_artifact(tmp_path / "clean", "build-data", lambda out: write_json(out / "metrics.json", {"dropped": {}}))
    said: list[str] = []
    tell_dropped(tmp_path / "clean", said.append)
    tell_dropped(tmp_path / "data", said.append)
    assert said == [
        "    dropped 21: reason 6 (6), reason 5 (5), reason 4 (4), reason 3 (3), reason 2 (2), ...; each is in its table 'dropped'"
    ]


def test_a_deleted_artifact_is_made_again_alone(toys, tmp_path):
    shutil.rmtree(make(spec(), tmp_path)["two"])
    make(spec(), tmp_path)
    assert made(tmp_path)[4:] == ["two"]


def test_the_machine_never_changes_what_an_artifact_is_called(toys, tmp_path):
    first = make(spec(), tmp_path)
    other = Machine(device="cpu", dtype="bfloat16", processes=4, workers=3, forward_tokens=1, train_rows=1, tracker="wandb")
    assert make(spec(), tmp_path, other) == first
    assert len(made(tmp_path)) == 4


def test_the_fingerprints_of_a_fixed_plan_never_change(toys):
    assert [entry.fingerprint for entry in make_plan(spec()).values()] == ["878e1a51", "1fc0f8a5", "b5df96b1", "cb7b67f7"]


def test_the_name_of_an_entry_is_no_part_of_its_fingerprint_nor_is_the_way_its_input_is_named(toys, tmp_path):
    paths = make(spec(), tmp_path)
    other = {"sum": {"kind": "add", "inputs": [str(paths["one"]), str(tmp_path / "two")]}}
    assert make_plan(other)["sum"].fingerprint == make_plan(spec())["total"].fingerprint


def test_the_content_of_a_file_changes_the_fingerprint_and_its_path_does_not(toys, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")

    def mark(name):
        return make_plan({"x": {"kind": "write", "file": str(tmp_path / name)}})["x"].fingerprint

    assert mark("a") == mark("b")
    (tmp_path / "b").write_text("another")
    assert mark("a") != mark("b")


def test_a_file_reaches_a_stage_as_an_absolute_path(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("mine")
    paths = make({"x": {"kind": "write", "file": "mine.txt"}}, tmp_path / "runs")
    assert read_metrics(paths["x"])["file"] == str(tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"a": {"kind": "write", "numbr": 1}}, "entry 'a': unknown field 'numbr'; did you mean number?"),
        ({"a": {"kind": "wriet"}}, "entry 'a': there is no stage 'wriet'; did you mean write?"),
        ({"a": {"number": 1}}, "entry 'a' must be a mapping with a 'kind'"),
        ({"a": {"kind": "add", "inputs": ["b"]}, "b": {"kind": "write"}}, "entry 'a': 'b' comes later; move it up"),
        ({"a": {"kind": "add", "inputs": ["a"]}}, "entry 'a': 'a' comes later"),
        (
            {"b": {"kind": "write"}, "a": {"kind": "add", "inputs": ["c"]}},
            r"entry 'a': 'c' is not an entry \(earlier entries: b;",
        ),
        ({"a": {"kind": "add", "inputs": ["./nowhere"]}}, "entry 'a': nowhere is not an artifact"),
        ({"a": {"kind": "write", "file": "/nowhere"}}, "entry 'a': there is no file or directory at /nowhere"),
        ({"a": {"kind": "write", "anything": [float("nan")]}}, "entry 'a': a config holds nan of type float"),
        ({"a": {"kind": "write", "anything": print}}, "entry 'a': a config holds .*builtin_function_or_method"),
        ({"a/b": {"kind": "write"}}, "entry 'a/b': a name may not be empty or hold a slash"),
        (
            {"a": {"kind": "add", "inputs": [], "method": {"kind": "sum", "scale": "REQUIRED"}}},
            "asks you for a.method.scale: add --set a.method.scale=",
        ),
    ],
)
def test_a_mistake_in_a_plan_is_one_line_that_names_the_entry(toys, plan, message):
    with pytest.raises(PlaypenError, match=message) as caught:
        make_plan(plan)
    assert "\n" not in str(caught.value)


def test_a_dry_run_says_what_is_there_and_to_do_and_makes_nothing(toys, tmp_path):
    make({"one": spec()["one"]}, tmp_path)
    said = []
    run_plan(make_plan(spec()), tmp_path, Machine(), said.append, dry_run=True)
    assert [line.split()[:2] for line in said] == [["there", said[0].split()[1]], *[["to", "do"]] * 3]
    assert made(tmp_path) == ["one"]


def test_the_root_names_the_artifact_of_each_entry_and_keeps_those_of_earlier_plans(toys, tmp_path):
    make({"old": {"kind": "write"}}, tmp_path)
    paths = make(spec(), tmp_path)
    assert artifact.find_artifact(str(tmp_path / "total")) == paths["total"]
    assert artifact.find_artifact(str(tmp_path / "old")).name.startswith("old-")


FRAGILE = {"done": {"kind": "write"}, "work": {"kind": "fragile"}}
STUBBORN = {"done": {"kind": "write"}, "work": {"kind": "stubborn"}}


@pytest.mark.parametrize(
    ("trouble", "error", "message"),
    [
        ("bug", ZeroDivisionError, "a bug"),
        ("mistake", PlaypenError, "the user's mistake"),
        ("full", PlaypenError, "work-.*: the disk of .* is full; free room and run again, nothing finished is lost"),
        ("full, told by a library", PlaypenError, "is full; free room"),
    ],
)
def test_a_stage_that_breaks_leaves_only_its_part_and_what_was_finished(toys, tmp_path, trouble, error, message):
    (tmp_path / "trouble").write_text(trouble)
    with pytest.raises(error, match=message):
        make(FRAGILE, tmp_path)
    assert [path.name[:4] for path in artifact_paths(tmp_path)] == ["done"]
    assert [path.name[:4] for path in tmp_path.glob("*.part")] == ["work"]
    assert artifact.verify(artifact_paths(tmp_path)[0]) == []


@pytest.mark.parametrize(("plan", "found"), [(FRAGILE, []), (STUBBORN, ["half.txt"])])
def test_after_trouble_a_resumable_stage_goes_on_and_others_start_clean(toys, tmp_path, plan, found):
    (tmp_path / "trouble").write_text("bug")
    with pytest.raises(ZeroDivisionError):
        make(plan, tmp_path)
    (tmp_path / "trouble").unlink()
    work = make(plan, tmp_path)["work"]
    assert read_metrics(work)["found"] == found
    assert sorted(path.name for path in work.iterdir()) == ["half.txt", "manifest.json", "metrics.json"]
    assert list(tmp_path.glob("*.part")) == []
    assert made(tmp_path) == ["done"], "what was finished is not made again"


def test_a_killed_process_loses_nothing_finished_and_its_lock_is_free_again(toys, tmp_path):
    (tmp_path / "trouble").write_text("killed")
    assert run_toys(STUBBORN, tmp_path).wait() == -signal.SIGKILL
    assert [path.name[:4] for path in artifact_paths(tmp_path)] == ["done"]
    (tmp_path / "trouble").unlink()
    assert read_metrics(make(STUBBORN, tmp_path)["work"])["found"] == ["half.txt"]


def test_a_directory_without_a_manifest_in_the_place_of_an_artifact_is_told_before_work_begins(toys, tmp_path):
    (tmp_path / make_plan(spec())["one"].directory).mkdir()
    with pytest.raises(PlaypenError, match=r"is there without a manifest.json, .* delete it and run again"):
        make(spec(), tmp_path)
    assert made(tmp_path) == []


def test_two_processes_on_one_plan_share_the_work(tmp_path):
    plan = {f"n{i}": {"kind": "write", "number": i, "seconds": 0.3} for i in range(6)}
    plan["total"] = {"kind": "add", "inputs": list(plan)}
    both = [run_toys(plan, tmp_path, together=2) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(made(tmp_path)) == sorted(plan), "each is made once"
    assert all("making n" in output for output in outputs), "both worked"
    assert all("total" in output.splitlines()[-1] for output in outputs), "both ended with everything there"


def test_a_process_waits_for_the_artifact_that_another_one_makes(tmp_path):
    plan = {"slow": {"kind": "write", "seconds": 1.0}}
    both = [run_toys(plan, tmp_path, together=2) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert made(tmp_path) == ["slow"]


def run_toys(plan, root, together=1):
    file = root / "plan.yaml"
    file.write_text(repr(plan))  # Python's literals of a plan are YAML too
    command = [sys.executable, toy.__file__, "run", str(file), "--root", str(root)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "TOGETHER": str(together)}
    )


def artifact_paths(root):
    return [path for path, _ in artifact.artifacts_in(root)]


@pytest.mark.parametrize("kind", ["fragile", "build-data", "attribute", "classify", "select", "evaluate", ""])
def test_no_stage_but_validate_and_report_reads_planted_truth(kind, tmp_path):
    token = running_stage.set(kind)
    try:
        with pytest.raises(PlaypenError, match="only validate, report and explore may read it"):
            read_truth(tmp_path)
    finally:
        running_stage.reset(token)


def test_a_stage_runs_known_by_its_verb(toys, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(load_stage("write"), "run", lambda config, out, machine: seen.append(running_stage.get()))
    make({"x": {"kind": "write"}}, tmp_path)
    assert (seen, running_stage.get()) == (["write"], "")


def source(kind):
    return ast.parse((STAGES / f"{kind.replace('-', '_')}.py").read_text())


@pytest.mark.parametrize("kind", VERBS)
def test_a_stage_begins_with_one_line_of_help_a_question_and_a_command(kind):
    doc = ast.get_docstring(source(kind)) or ""
    first, *rest = doc.split("\n")
    assert first.endswith((".", "?")), first
    assert len(first) < 130
    assert f"playpen {kind}" in "\n".join(rest) or f"kind: {kind}" in "\n".join(rest), "no command to run"


@pytest.mark.parametrize("kind", VERBS)
def test_a_stage_has_a_version_a_config_and_a_run(kind):
    module = load_stage(kind)
    assert isinstance(module.VERSION, int)
    assert list(inspect.signature(module.run).parameters) == ["config", "out", "machine"]
    assert module.Config.__pydantic_config__["extra"] == "forbid"
    assert (inspect.getdoc(module.run) or "").strip()


@pytest.mark.parametrize("kind", VERBS)
def test_every_field_of_every_config_of_a_stage_is_documented(kind):
    for cls in (node for node in source(kind).body if isinstance(node, ast.ClassDef)):
        if not any(ast.unparse(decorator) == "config" for decorator in cls.decorator_list):
            continue
        assert ast.get_docstring(cls), f"{cls.name} says nothing"
        for node, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) != "kind":
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{cls.name}.{ast.unparse(node.target)} is not documented"


def test_importing_every_stage_imports_no_heavy_library():
    code = (
        "import sys; from playpen.stage import load_stage, stage_kinds; [load_stage(kind) for kind in stage_kinds()]; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
