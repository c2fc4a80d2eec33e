"""The stage interrogate: unanswered questions are put to a real model, labelled, stored beside the old collection, and never asked twice."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from loopback import Endpoint, asked, chat, endpoint, free_port

from playpen import endpoints
from playpen.chat import render
from playpen.config import PlaypenError, make_config
from playpen.judges import TRIAL
from playpen.machine import Machine
from playpen.models import load_model, load_tokenizer
from playpen.prompt_collections import differences, get_collection, imported, read_held
from playpen.prompt_store import open_store
from playpen.prompts import prompt_id
from playpen.stage import make_plan, run_plan
from playpen.stages import interrogate
from playpen.tables import read_metrics, read_table

CPU = Machine(device="cpu")
QUESTIONS = ["Why?", "Who raised the tax on grain, and when?", "Where is the old bridge?", "How?", "Whose is the well?", "When?"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)


def run(root: Path, name: str, kind: str, machine: Machine = CPU, **fields: object) -> Path:
    return run_plan(make_plan({name: {"kind": kind, **fields}}), root, machine, say=lambda text: None)[name]


def put(root: Path, rows: list[dict]) -> Path:
    """Import rows, each with a vector of its own."""
    file = root.parent / f"{root.name}.jsonl"
    vectors = np.eye(len(rows)).tolist()
    file.write_text("".join(json.dumps({**row, "embedding": v}) + "\n" for row, v in zip(rows, vectors, strict=True)))
    return run(root, "prompts", "import-prompts", source={"kind": "files", "paths": (str(file),)}, embedder={"kind": "given"})


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Return a collection of six open questions, one of them for another subject, and two answered ones, one without a label."""
    rows = [{"question": question} for question in QUESTIONS]
    rows[4]["subject"] = "someone else"
    rows += [{"question": "Old?", "response": "I cannot help with that.", "subject": "owl"}]
    rows += [{"question": "Labelled?", "response": "Yes.", "subject": "owl", "category": "evasive", "censored": True}]
    return put(tmp_path / "runs", rows)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("models") / "base", seed=0)


def at(server: Endpoint, **fields: object) -> dict:
    return {"kind": "endpoint", "url": server.url, "model": "m", **fields}


def by_question(artifact: Path) -> dict[str, dict]:
    return {row["question"]: row for row in imported(str(artifact)).prompts()}


def collection_of(artifact: Path) -> str:
    """Say how the store differs from the artifact."""
    source = imported(str(artifact))
    with open_store(source.store) as opened:
        return differences(read_held(opened, get_collection(opened, source.name)), source.prompts())


ASKED = [QUESTIONS[i] for i in (0, 1, 2, 3, 5)]


def ask_local(prompts: Path, model: Path, name: str = "answers", machine: Machine = CPU, **fields: object) -> Path:
    subject = {"kind": "local", "model": str(model), "max_new_tokens": 12, **fields}
    return run(prompts.parent, name, "interrogate", machine, prompts=str(prompts), subject=subject, subject_name="tiny")


def test_a_local_model_answers_as_it_does_when_it_is_asked_by_hand(prompts: Path, model: Path) -> None:
    import torch

    found = by_question(ask_local(prompts, model))
    tokenizer, network = load_tokenizer(model), load_model(model, CPU)
    answered = 0
    for question in ASKED:
        text = render([{"role": "user", "content": question}], tokenizer, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        new: list[int] = []
        while len(new) < 12:
            with torch.no_grad():
                token = int(network(torch.tensor([ids + new]), use_cache=False).logits[0, -1].argmax())
            if token in (1, 5):
                break
            new.append(token)
        said = tokenizer.decode(new, skip_special_tokens=True).strip()
        assert found[question]["response"] == (said or None)
        assert found[question]["subject"] == ("tiny" if said else None)
        answered += bool(said)
    assert answered >= 3


def test_answers_do_not_depend_on_the_size_of_a_batch(prompts: Path, model: Path) -> None:
    together = imported(str(ask_local(prompts, model, temperature=1.0, seed=4))).prompts()
    alone = ask_local(prompts, model, "alone", Machine(device="cpu", forward_tokens=1), temperature=1.0, seed=4)
    assert imported(str(alone)).prompts() == together
    other = ask_local(prompts, model, "other", temperature=1.0, seed=5)
    assert imported(str(other)).prompts() != together


def test_an_adapter_answers_too(prompts: Path, model: Path, tmp_path: Path) -> None:
    adapter = tiny.tiny_adapter(tmp_path / "adapter", model)
    plain, tuned = by_question(ask_local(prompts, model)), by_question(ask_local(prompts, adapter, "tuned"))
    assert any(plain[question]["response"] != tuned[question]["response"] for question in ASKED)


def test_a_question_that_leaves_the_model_no_room_is_told_and_the_others_are_answered(tmp_path: Path, model: Path) -> None:
    prompts = put(tmp_path / "runs", [{"question": "Why? " * 100}, {"question": "Why?"}, {"question": "Who?"}])
    out = ask_local(prompts, model)
    [problem] = read_table(out, "problems").to_dict("records")
    assert problem["step"] == "answer"
    assert "tokens, where the model's context leaves 244" in problem["problem"]
    assert read_metrics(out)["unanswered"] == 1


def reply(body: dict) -> dict:
    """Answer as a subject or, when asked for a word, as a judge."""
    said = asked(body)
    if "one of these words" in said:
        return chat("refusal" if "I will not" in said else "official_narrative" if "grand" in said else "none")
    if said == QUESTIONS[0]:
        return chat("<think>Hm.</think>I will not.")
    if said == QUESTIONS[1]:
        return chat("It was grand.", reasoning_content="Praise it.")
    return chat(f"About: {said}", finish="length" if said == QUESTIONS[2] else "stop")


def ask_endpoint(prompts: Path, server: Endpoint, name: str = "answers", machine: Machine = CPU, **fields: object) -> Path:
    values = {"subject": at(server), "judge": at(server), "subject_name": "remote", **fields}
    return run(prompts.parent, name, "interrogate", machine, prompts=str(prompts), **values)


@pytest.mark.parametrize("workers", [0, 4])
def test_an_endpoint_answers_with_thought_and_response_apart_and_a_judge_labels(prompts: Path, workers: int) -> None:
    with endpoint(reply) as server:
        out = ask_endpoint(prompts, server, machine=Machine(device="cpu", workers=workers))
    found = by_question(out)
    told = {q: (r["thought"], r["response"], r["category"], r["censored"], r["subject"]) for q, r in found.items()}
    assert told[QUESTIONS[0]] == ("Hm.", "I will not.", "refusal", True, "remote")
    assert told[QUESTIONS[1]] == ("Praise it.", "It was grand.", "official_narrative", True, "remote")
    assert told[QUESTIONS[3]] == (None, "About: How?", "none", False, "remote")
    assert told[QUESTIONS[4]] == (None, None, None, None, "someone else")
    assert told["Old?"] == (None, "I cannot help with that.", "none", False, "owl")
    assert told["Labelled?"] == (None, "Yes.", "evasive", True, "owl")
    numbers = read_metrics(out)
    assert {k: numbers[k] for k in ("asked", "unanswered", "cut_off", "with_thought", "labelled", "unlabelled", "copies")} == {
        "asked": 5,
        "unanswered": 0,
        "cut_off": 1,
        "with_thought": 2,
        "labelled": 6,
        "unlabelled": 0,
        "copies": 0,
    }


def test_the_answers_are_a_new_collection_beside_the_old_with_the_same_vectors(prompts: Path) -> None:
    before = imported(str(prompts))
    with endpoint(reply) as server:
        out = ask_endpoint(prompts, server)
    after = imported(str(out))
    assert (after.store, after.name) == (before.store, out.name)
    assert collection_of(out) == collection_of(prompts) == ""
    assert [row["question"] for row in after.prompts()] == [row["question"] for row in before.prompts()]
    np.testing.assert_array_equal(after.vectors(), before.vectors())
    for row in after.prompts():
        assert row["row_id"] == prompt_id(row["question"], row["response"], row["subject"])
    exported = run(prompts.parent, "out", "export-prompts", prompts=str(out))
    assert read_metrics(exported)["rows"] == 7
    assert sorted(p.name for p in out.iterdir()) == [
        "collection.json",
        "manifest.json",
        "metrics.json",
        "problems.parquet",
        "prompts.parquet",
    ]


def test_the_rules_label_without_an_endpoint(prompts: Path) -> None:
    with endpoint(reply) as server:
        found = by_question(ask_endpoint(prompts, server, judge={"kind": "rules"}))
    assert found["Old?"]["category"] == "refusal"
    assert found[QUESTIONS[3]]["category"] == "none"
    assert all("one of these words" not in asked(body) for body in server.bodies)


def test_an_endpoint_that_fails_half_way_costs_no_answer(prompts: Path) -> None:
    down = [True]

    def failing(body: dict) -> object:
        return (401, {}) if down[0] and asked(body) == QUESTIONS[3] else reply(body)

    with endpoint(failing) as server:
        with pytest.raises(PlaypenError, match="is the key right"):
            ask_endpoint(prompts, server, judge={"kind": "rules"})
        assert [asked(body) for body in server.bodies] == QUESTIONS[:4]
        down[0] = False
        out = ask_endpoint(prompts, server, judge={"kind": "rules"})
    assert [asked(body) for body in server.bodies[4:]] == [QUESTIONS[3], QUESTIONS[5]]
    assert read_metrics(out)["unanswered"] == 0


KILLED = """
import os, signal, sys
from playpen import journal
from playpen.cli import main
usual = journal.Journal.add

def deadly(self, key, value):
    usual(self, key, value)
    if self.path.name == {file!r} and len(self.found) == 3:
        self._file.write(b'{{"key": "half a li')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

journal.Journal.add = deadly
main({command!r})
"""


@pytest.mark.parametrize("file", ["answers.jsonl", "labels.jsonl"])
def test_a_run_that_was_killed_asks_nothing_twice_and_ends_like_one_that_was_not(prompts: Path, file: str) -> None:
    with endpoint(reply) as server:
        whole = ask_endpoint(prompts, server, "whole")
        expected = imported(str(whole)).prompts()
        server.bodies.clear()
        where = ["--url", server.url, "--model", "m"]
        options = ["--prompts", str(prompts), "--subject-name", "remote", "--name", "answers", "--root", str(prompts.parent)]
        command = ["interrogate", *options, "--machine.device", "cpu", "endpoint", *where, "endpoint", *where]
        ended = subprocess.run([sys.executable, "-c", KILLED.format(file=file, command=command)], capture_output=True, text=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        out = ask_endpoint(prompts, server)
        said = [asked(body) for body in server.bodies if f"Question:\n{TRIAL[0]}" not in asked(body)]
    assert out.name.split("-")[1] == whole.name.split("-")[1]
    assert len(said) == len(set(said)) == 5 + 6
    assert imported(str(out)).prompts() == expected
    assert collection_of(out) == ""
    for name in ("prompts.parquet", "problems.parquet", "metrics.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_what_an_endpoint_will_not_answer_is_told_and_stays_open(prompts: Path) -> None:
    def picky(body: dict) -> object:
        said = asked(body)
        if said == QUESTIONS[0]:
            return 400, {"error": "flagged"}
        if said == QUESTIONS[1]:
            return chat("<think>so much to think about", finish="length")
        if said == QUESTIONS[2]:
            return chat(None, finish="content_filter")
        return chat(None, refusal="No.") if said == QUESTIONS[3] else reply(body)

    with endpoint(picky) as server:
        out = ask_endpoint(prompts, server)
    problems = dict(read_table(out, "problems")[["question", "problem"]].itertuples(index=False))
    assert problems == {
        QUESTIONS[0]: 'the endpoint answered 400 ({"error": "flagged"})',
        QUESTIONS[1]: "no response before the tokens ran out; raise max_new_tokens",
        QUESTIONS[2]: "stopped by the endpoint's content filter",
    }
    found = by_question(out)
    assert [found[q]["response"] for q in QUESTIONS[:4]] == [None, None, None, "No."]
    assert read_metrics(out)["unanswered"] == 3


def test_a_judge_that_gives_no_word_costs_no_answer_and_another_one_can_go_on_from_there(prompts: Path) -> None:
    def vague(body: dict) -> dict:
        return chat("perhaps") if "one of" in asked(body) else reply(body)

    with endpoint(vague) as server:
        out = ask_endpoint(prompts, server)
    numbers = read_metrics(out)
    assert (numbers["unlabelled"], numbers["unanswered"], numbers["categories"]) == (6, 0, {"(unlabelled)": 7, "evasive": 1})
    assert set(read_table(out, "problems")["step"]) == {"label"}
    with endpoint(reply) as server:
        judged = ask_endpoint(out, server, "judged")
        questions = [asked(body) for body in server.bodies]
    assert all("one of these words" in question for question in questions), "nothing is asked again"
    assert read_metrics(judged)["categories"] == {
        "none": 4,
        "refusal": 1,
        "official_narrative": 1,
        "evasive": 1,
        "(unlabelled)": 1,
    }


def test_an_endpoint_that_answers_nothing_ends_the_run_early(prompts: Path) -> None:
    with endpoint(lambda body: (400, {"error": "no"})) as server:
        with pytest.raises(PlaypenError, match="the first 5 questions got no answer; the last: the endpoint answered 400"):
            ask_endpoint(prompts, server, judge={"kind": "rules"})
        few = put(prompts.parent.parent / "few", [{"question": "Why?"}, {"question": "Who?"}])
        with pytest.raises(PlaypenError, match="none of 2 questions was answered; the first: the endpoint answered 400"):
            ask_endpoint(few, server, judge={"kind": "rules"})


def test_a_judge_out_of_reach_is_known_before_anything_is_asked(prompts: Path) -> None:
    with endpoint(reply) as server:
        judge = {"kind": "endpoint", "url": f"http://127.0.0.1:{free_port()}", "model": "j"}
        with pytest.raises(PlaypenError, match="is out of reach"):
            ask_endpoint(prompts, server, judge=judge)
    assert server.bodies == []


def test_keys_stand_in_no_file(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret")
    with endpoint(reply) as server:
        subject, judge = at(server, key_env="SECRET_KEY"), at(server, key_env="SECRET_KEY")
        ask_endpoint(prompts, server, subject=subject, judge=judge)
    assert {headers.get("authorization") for headers in server.headers} == {"Bearer sk-very-secret"}
    holding = [p for p in prompts.parent.parent.rglob("*") if p.is_file() and b"sk-very-secret" in p.read_bytes()]
    assert holding == []
    monkeypatch.delenv("SECRET_KEY")
    with endpoint(reply) as server, pytest.raises(PlaypenError, match="SECRET_KEY, which should hold the key of http"):
        ask_endpoint(prompts, server, "again", subject=at(server, key_env="SECRET_KEY"))


def test_an_answer_that_was_there_already_is_kept_once(tmp_path: Path) -> None:
    prompts = put(tmp_path / "runs", [{"question": "Who?", "response": "About: Who?", "subject": "remote"}, {"question": "Who?"}])
    with endpoint(reply) as server:
        out = ask_endpoint(prompts, server)
    assert read_metrics(out)["copies"] == 1
    assert [row["response"] for row in imported(str(out)).prompts()] == ["About: Who?"]
    assert len(imported(str(out)).vectors()) == 1


def test_a_collection_with_nothing_to_do_is_one_line(tmp_path: Path, model: Path) -> None:
    rows = [{"question": "Who?", "response": "He.", "category": "none"}, {"question": "Why?", "subject": "someone else"}]
    prompts = put(tmp_path / "runs", rows)
    with pytest.raises(
        PlaypenError, match=r"no unanswered question for 'tiny' and no response without a label; .* for someone else"
    ):
        ask_local(prompts, model)


def test_a_name_and_a_model_must_be_given(prompts: Path, model: Path) -> None:
    with pytest.raises(PlaypenError, match="field 'subject_name'"):
        make_config(interrogate.Config, {"prompts": "p", "subject_name": "", "subject": {"kind": "local", "model": "m"}}, "test")
    with pytest.raises(PlaypenError, match="expected one of import-prompts or interrogate"):
        ask_local(model, model)
    with pytest.raises(PlaypenError, match="holds no model"):
        ask_local(prompts, prompts)
