"""What a person types and reads."""

import json
import re
import subprocess
import sys

import pytest
import toy
import yaml

from playpen import cli
from playpen.config import PlaypenError
from playpen.stage import stage_kinds

PLAN = {"one": {"kind": "write", "number": 1}, "total": {"kind": "add", "inputs": ["one"], "method": {"kind": "sum", "scale": 2}}}


@pytest.fixture
def toys(monkeypatch):
    toy.install(monkeypatch.setattr)


@pytest.fixture
def home(tmp_path, monkeypatch, toys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))
    return tmp_path


def said(capsys, *args):
    """Run a command that ends well, and return what it prints."""
    capsys.readouterr()
    cli.main(list(args))
    return capsys.readouterr().out


def complaint(capsys, *args):
    """Run a command that ends badly, and return its complaint."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main(list(args))
    assert caught.value.code == 2
    return capsys.readouterr().err


def help_of(capsys, *args):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main([*args, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "place", "value"),
    [
        ("a.n=2", ["a", "n"], 2),
        ("a.deep.k=null", ["a", "deep", "k"], None),
        ("a.list.1=x", ["a", "list", 1], "x"),
        ("a.rows.0.k=[1, 2]", ["a", "rows", 0, "k"], [1, 2]),
        ("a.new.er=a=b", ["a", "new", "er"], "a=b"),
    ],
)
def test_set_changes_what_its_path_names(setting, place, value):
    spec = {"a": {"n": 1, "deep": {"k": 1}, "list": ["p", "q"], "rows": [{"k": 0}]}}
    cli.apply_setting(spec, setting)
    found = spec
    for part in place:
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a.n", r"--set takes a\.b=c, found 'a\.n'"),
        ("=3", "--set takes"),
        ("a=3", "--set a: name a field too, as entry.field=value"),
        ("b.n=3", "--set b.n: there is no entry 'b'"),
        ("a.list.2=x", "--set a.list.2: '2' should count one of 2 items, from 0"),
        ("a.list.first=x", "'first' should count one of 2 items"),
        ("a.rows.1.k=x", "'1' should count one of 1 items"),
        ("a.n.k=x", "'n' holds 1, which has no fields"),
        ("a.n=[1,", r"--set a\.n: '\[1,' is not YAML"),
    ],
)
def test_a_mistaken_set_says_what_is_wrong_with_it(setting, message):
    with pytest.raises(PlaypenError, match=message):
        cli.apply_setting({"a": {"n": 1, "list": ["p", "q"], "rows": [{"k": 0}]}}, setting)


@pytest.mark.parametrize(
    "flags", [["--set", "one.number=5", "total.method.scale=3"], ["--set", "one.number=5", "--set", "total.method.scale=3"]]
)
def test_run_makes_a_plan_as_changed_by_one_or_several_sets(home, capsys, flags):
    out = said(capsys, "run", "plan.yaml", *flags)
    assert "plan: 2 entries in runs/plan" in out
    assert json.loads(said(capsys, "show", "runs/plan/total"))["metrics"] == {"number": 15}


def test_run_says_first_what_is_there_and_what_is_to_do(home, capsys):
    assert re.findall(r"^  (to do|there)", said(capsys, "run", "plan.yaml", "--dry-run"), re.M) == ["to do", "to do"]
    assert not (home / "runs").exists()
    said(capsys, "run", "plan.yaml")
    assert re.findall(r"^  (to do|there)", said(capsys, "run", "plan.yaml"), re.M) == ["there", "there"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "plam.yaml"], "there is no preset or YAML file 'plam.yaml'"),
        (["run", "broken.yaml"], "broken.yaml is not YAML: "),
        (["run", "twice.yaml"], "the name 'a' stands twice"),
        (["run", "empty.yaml"], "empty.yaml must hold a mapping of names to configs, found NoneType"),
        (["run", "typo.yaml"], "entry 'a': unknown field 'numbr'; did you mean number?"),
        (["rnu", "plan.yaml"], "there is no command 'rnu'; did you mean run?"),
        (["ls", "nowhere"], "there is no directory nowhere"),
        (["show", "runs/nothing"], "runs/nothing is not an artifact"),
        (["add", "--inputs", "one"], "'one' names no artifact: give its path, as runs/demo/one"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(home, capsys, args, message):
    (home / "broken.yaml").write_text("a: [1,\nb: }")
    (home / "twice.yaml").write_text("a: {kind: write}\na: {kind: write}\n")
    (home / "empty.yaml").write_text("# nothing\n")
    (home / "typo.yaml").write_text("a: {kind: write, numbr: 1}")
    complained = complaint(capsys, *args)
    assert complained.startswith("playpen: ")
    assert message in complained
    assert complained.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ["predict", "--clasifier", "a/b", "--sae", "c/d"],
            "predict: missing --classifier, --model, --data; nothing takes '--clasifier a/b', did you mean --classifier?; see playpen predict --help",
        ),
        (
            ["select", "--data", "a/b", "topk", "--k", "3"],
            "select: nothing takes 'topk --k 3', did you mean top-k?; see playpen select --help",
        ),
        (
            ["select", "--data", "a/b", "top-k", "--kk", "3"],
            "select: nothing takes '--kk 3', did you mean --k?; see playpen select --help",
        ),
        (["run", "demo", "--dryrun"], "run: nothing takes '--dryrun', did you mean --dry-run?; see playpen run --help"),
        (["compare", "--plan"], "compare: Missing value for argument '--plan'. Expected 1 values; see playpen compare --help"),
        (
            ["select", "--data", "a/b", "top-k", "--k", "3", "--scores", "c/d"],
            "select: --scores belongs before the sub-command; see playpen select --help",
        ),
        (
            ["build-pool", "--model", "a/b", "--data", "c/d", "--paths", "x.jsonl"],
            "build-pool: --paths belongs after the sub-command files; see playpen build-pool --help",
        ),
        (["run"], "run: missing PRESET; see playpen run --help"),
        (
            ["run", "demo", "--st", "/a/path/so/long/that/the/parser/breaks/its/line/where/the/terminal/of/eighty/columns/ends"],
            "run: nothing takes '--st /a/path/so/long/that/the/parser/breaks/its/line/where/the/terminal/of/eighty/columns/ends', "
            "did you mean --set?; see playpen run --help",
        ),
        (
            ["predict", "--modle", "a/b", "--machine.devices", "cpu"],
            "predict: missing --classifier, --sae, --model, --data; nothing takes '--modle a/b --machine.devices cpu', "
            "did you mean --model or --machine.device?; see playpen predict --help",
        ),
        (
            ["attribute", "--model", "a/b", "--data", "c/d", "--aggregation", "men"],
            "attribute: invalid choice 'men' for argument '--aggregation'. Expected one of ('mean', 'nearest'); see playpen attribute --help",
        ),
        (
            ["train-sae", "--model", "a/b", "--data", "c/d", "--hook", "x", "--d-sae", "x"],
            "train-sae: Error parsing --d-sae: invalid literal for int() with base 10: 'x'; see playpen train-sae --help",
        ),
    ],
)
def test_a_mistaken_flag_is_one_line_that_names_the_nearest(tmp_path, monkeypatch, capsys, args, line):
    monkeypatch.chdir(tmp_path)
    assert complaint(capsys, *args) == f"playpen: {line}\n"


def test_a_mode_left_out_is_told_with_all_there_are(capsys):
    told = complaint(capsys, "score", "--data", "a/b")
    assert re.fullmatch(r"playpen: score: Expected one of \{random, length, .*sae-similarity\}; see playpen score --help\n", told)


def test_ls_shows_each_artifact_and_how_it_differs_from_the_one_before_of_its_name(home, capsys):
    for lr in ("3e-4", "1e-4"):
        said(capsys, "run", "plan.yaml", "--set", f"total.lr={lr}")
    lines = said(capsys, "ls").splitlines()
    assert [line.split()[0][:9] for line in lines] == ["plan/one-", "plan/tota", "plan/tota", "lr:"]
    assert lines[-1].strip() == "lr: 0.0003 -> 0.0001"
    assert said(capsys, "ls", "runs/plan").splitlines()[0].split()[1] == "write"


def test_show_prints_the_manifest_and_verify_notices_a_changed_byte(home, capsys):
    said(capsys, "run", "plan.yaml")
    manifest = json.loads(said(capsys, "show", "runs/plan/one"))
    assert (manifest["kind"], manifest["config"]["number"]) == ("write", 1.0)
    assert {"commit", "command", "packages", "machine", "seconds"} <= manifest["provenance"].keys()
    assert "all 1 files are as they were made" in said(capsys, "show", "--verify", "runs/plan/one")
    file = next((home / "runs/plan").glob("one-*/metrics.json"))
    file.write_bytes(file.read_bytes().replace(b"1.0", b"2.0"))
    assert "metrics.json: changed" in complaint(capsys, "show", "runs/plan/one", "--verify")


def test_one_stage_runs_alone_from_flags_and_gives_what_a_plan_gives(home, capsys):
    said(capsys, "run", "plan.yaml")
    one = said(capsys, "write", "--number", "1", "--root", "runs/mine").splitlines()[-1]
    total = said(capsys, "add", "--inputs", one, "--root", "runs/mine", "--name", "total", "sum", "--scale", "2").splitlines()[-1]
    assert total.split("/")[-1] in {path.name for path in (home / "runs/plan").iterdir()}
    assert one.startswith("runs/mine/write-")


def test_help_of_a_stage_keeps_its_own_text_and_explains_every_field(toys, capsys):
    text = help_of(capsys, "write")
    assert text.startswith("Write a number.\n\n    playpen write --number 3\n\nStands for any stage that reads no artifact.\n")
    for words in ("--number FLOAT", "The number. (default: 1.0)", "--file {None}|PATH", "A file of the user's."):
        assert words in text
    assert text.index("--number") < text.index("--name") < text.index("--machine.device")
    assert "type: ignore" not in text


def test_help_calls_inputs_artifacts_and_shows_no_kind(toys, capsys):
    assert "--inputs [ARTIFACT [ARTIFACT ...]]" in help_of(capsys, "add")
    union = help_of(capsys, "add", "--inputs", "runs/x", "sum")
    assert "--scale FLOAT" in union
    assert "--kind" not in union


def test_help_of_every_real_stage_reads_without_an_error(capsys):
    for kind in stage_kinds():
        text = help_of(capsys, kind)
        assert f"usage: playpen {kind}" in text
        assert "--kind" not in text


def test_the_overview_names_every_command_with_one_line(capsys):
    text = said(capsys, "--help")
    for name, line in {**cli.COMMANDS, **stage_kinds()}.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.M)


def test_presets_are_listed_with_their_first_line_and_printed_as_they_are(tmp_path, monkeypatch, capsys):
    text = "# Ask something.\n#\n# takes a minute\none:\n  kind: write\n"
    (tmp_path / "small.yaml").write_text(text)
    monkeypatch.setattr(cli, "PRESETS", tmp_path)
    assert said(capsys, "presets").split() == ["small", "Ask", "something."]
    assert said(capsys, "presets", "small") == text
    assert "there is no preset or YAML file 'smal'; did you mean small?" in complaint(capsys, "presets", "smal")


@pytest.mark.parametrize("command", ["--help", "presets", "evaluate --help"])
def test_help_and_plans_import_no_heavy_library(command, tmp_path):
    code = (
        "import sys\nfrom playpen.cli import main\n"
        f"try: main({command.split()!r})\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'sklearn', 'matplotlib', 'lm_eval') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.splitlines()[-1] == "[]"
