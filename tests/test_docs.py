"""The documentation tells the truth: every stage has a page, every command line parses, every preset plans."""

import ast
import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import pytest
import tyro

from playpen import cli, hub
from playpen.stage import REQUIRED, STAGES, load_stage, make_plan, stage_kinds

HOME = Path(__file__).parents[1]
PAGES = sorted((HOME / "docs").glob("**/*.md"))
PRESETS = sorted(cli.PRESETS.glob("*.yaml"))
NEW_METHOD = "adding_a_method.md"
"""Its commands name a method that only the page has."""
ARGUMENTS = {
    "run": cli.RunArguments,
    "presets": cli.PresetsArguments,
    "ls": cli.ListArguments,
    "show": cli.ShowArguments,
    "serve": cli.ServeArguments,
}


def commands_in(text):
    """Return the `playpen ...` lines of a text, those that go on after a backslash joined, and those inside backticks."""
    whole = re.sub(r"\\+\n[#\s]*", " ", text)
    lines = re.findall(r"^[#\s]*\$?\s*(?:\.venv/bin/)?playpen +([a-z][^\n]*)$", whole, re.M)
    inline = re.findall(r"`(?:\.venv/bin/)?playpen +([^`\n]+)`", whole)
    return [shlex.split(command.split(" > ")[0], comments=True) for command in dict.fromkeys(lines + inline)]


def documents():
    """Yield (name, text) of everything that shows commands."""
    for file in (*PAGES, HOME / "README.md", *PRESETS):
        yield str(file.relative_to(HOME)), file.read_text()
    for file in sorted(STAGES.glob("*.py")):
        yield str(file.relative_to(HOME)), ast.get_docstring(ast.parse(file.read_text())) or ""


COMMANDS = [(name, words) for name, text in documents() for words in commands_in(text)]


@cache
def arguments_of(verb):
    return ARGUMENTS.get(verb) or cli._stage_arguments(load_stage(verb).Config)


def parse(words):
    """Parse a command as the command line does; a mistake fails with what the parser says."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return tyro.cli(arguments_of(words[0]), args=words[1:], prog=words[0], config=(tyro.conf.OmitSubcommandPrefixes,))
    except SystemExit as error:
        if error.code:
            pytest.fail(f"playpen {shlex.join(words)}\n{said.getvalue()}")


@cache
def entries_of(preset):
    return set(cli.load_preset(preset)[1])


@pytest.mark.parametrize("verb", stage_kinds())
def test_every_stage_has_its_page_and_stands_in_the_index(verb):
    page = HOME / "docs" / "stages" / f"{verb}.md"
    assert page.read_text().startswith(f"# {verb}\n")
    assert f"stages/{verb}.md" in (HOME / "docs" / "README.md").read_text()


def test_every_page_of_a_stage_is_of_a_stage():
    assert {page.stem for page in (HOME / "docs" / "stages").glob("*.md")} == set(stage_kinds())


@pytest.mark.parametrize("page", [*PAGES, HOME / "README.md"], ids=lambda page: page.stem)
def test_no_link_between_pages_is_dead(page):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 40
    assert {words[0] for _, words in COMMANDS} >= {*stage_kinds(), *ARGUMENTS}


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[f"{name}: {' '.join(words)[:60]}" for name, words in COMMANDS])
def test_every_command_shown_parses(name, words):
    if words[0].isupper() or words[0].startswith("-"):
        return  # `playpen STAGE --help`, `playpen --help`
    assert words[0] in {*ARGUMENTS, *stage_kinds()}, f"playpen {words[0]}: there is no such command"
    if words[1:] and "..." not in words and not (name.endswith(NEW_METHOD) and "shortest" in words):
        parse(words)


@pytest.mark.parametrize("words", [w for _, w in COMMANDS if w[0] == "run" and len(w) > 1], ids=" ".join)
def test_every_run_shown_names_a_preset_and_fields_that_it_has(words, tmp_path, monkeypatch):
    call = parse(words)
    if call is None or call.preset.isupper() or call.preset.endswith(".yaml"):
        return
    name, spec = cli.load_preset(call.preset)
    for setting in (s for several in call.set for s in several):
        cli.apply_setting(spec, setting)
    plan_of(name, spec, tmp_path, monkeypatch)


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[f"{name}: {' '.join(words)[:60]}" for name, words in COMMANDS])
def test_every_artifact_of_a_preset_that_is_shown_is_one_of_its_entries(name, words):
    for preset, entry in re.findall(r"runs/(\S+?)/([a-z_0-9]+)", " ".join(words)):
        if preset in {file.stem for file in PRESETS}:
            assert entry in entries_of(preset), f"{name}: {preset} has no entry '{entry}'"


@pytest.mark.parametrize("verb", stage_kinds())
def test_every_verb_shows_its_help(verb):
    said = io.StringIO()
    with redirect_stdout(said), pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"usage: playpen {verb}" in said.getvalue()


@pytest.mark.parametrize("file", sorted(STAGES.parent.glob("**/*.py")), ids=lambda file: file.stem)
def test_every_default_is_a_value_that_help_can_show(file):
    """`x: int = Field(default=1)` breaks the command line, of a sub-command only when it is asked for."""
    fields = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.AnnAssign)]
    wrong = [node.lineno for node in fields if isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "Field"]
    assert not wrong, f"{file}, lines {wrong}: write `x: Annotated[int, Field(...)] = 1`"


def test_the_method_of_the_page_on_adding_one_works():
    import numpy as np
    import pandas as pd

    from playpen import selection_rules

    text = (HOME / "docs" / NEW_METHOD).read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code
    names = dict(vars(selection_rules))
    exec(code[1], names)
    rows = pd.DataFrame({"num_labels": [5, 2, 9], "num_tokens": [9, 9, 9]})
    method = names["Shortest"](k=1)
    assert method(rows, np.random.default_rng(0)).idxmax() == 1
    assert {entry for line in re.findall(r"kind: select,.*", text) for entry in re.findall(r"(\w+):", line)} <= {
        *("kind", "method", "k"),
        *load_stage("select").Config.__dataclass_fields__,
    }


def plan_of(name, spec, tmp_path, monkeypatch):
    """Plan a preset without a hub; what it asks of the user is set to small files."""
    monkeypatch.setattr(hub, "pin", lambda reference, kind: f"{reference.partition('@')[0]}@{'0' * 40}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text("{}\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")

    def fill(value, key=""):
        if isinstance(value, dict):
            return {k: fill(v, k) for k, v in value.items()}
        if key == "paths":
            return ["chats.jsonl"]
        if isinstance(value, list):
            return [fill(item) for item in value]
        return "mine" if key == "path" and not (isinstance(value, str) and Path(value).exists()) else value

    plan = make_plan(fill(spec))
    assert list(plan) == list(spec), name
    return plan


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_every_preset_plans(preset, tmp_path, monkeypatch):
    name, spec = cli.load_preset(preset.stem)
    plan = plan_of(name, spec, tmp_path, monkeypatch)
    assert len({entry.fingerprint for entry in plan.values()}) == len(plan), "two entries are the same thing"
    assert REQUIRED not in str([entry.identity for entry in plan.values()])


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_every_preset_says_what_it_asks_needs_and_takes(preset):
    lines = preset.read_text().splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert re.match(rf"# .+[?.]   playpen run {preset.stem}\n", head)
    for part in ("Asks: ", "Needs: ", "Takes: "):
        assert part in head, part
    assert re.search(r"Takes: (?!MINUTES)", head), "the time it takes is not filled in"
    assert f"`{preset.stem}`" in (HOME / "docs" / "presets.md").read_text()
