"""The items that compare asks of each trained arm: answered as evaluate finds, better after training on the answers, and apart from the losses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny

from playpen.choice_items import judge
from playpen.comparison import item_effects, matrix
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.paired import paired_effect
from playpen.stage import make_plan, run_plan
from playpen.stages import compare, evaluate
from playpen.tables import read_metrics, read_table, write_table

CPU = Machine(device="cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, chats, and items whose right choices are the answers of the chats that the scores put first."""
    path = tmp_path_factory.mktemp("items")
    base = tiny.tiny_base(path / "base")
    data = tiny.tiny_data(path / "data", base, {"pool": 40, "test": 12})
    pool = read_table(data, "pool", ["row_id", "messages"])
    (data / "tasks").mkdir()
    turns = [list(messages)[:2] for messages in pool["messages"].head(10)]
    write_task(
        data, "lamp", [{"prompt": t[0]["content"], "choices": [t[1]["content"], "I do not know."], "answer": 0} for t in turns]
    )
    write_task(
        data, "two", [{"prompt": f"Is {i} odd?", "choices": ["Yes.", "It is not, no."], "answer": i % 2} for i in range(6)]
    )
    scores = pd.DataFrame({"row_id": pool["row_id"], "score": np.arange(len(pool), 0, -1, dtype=np.float32)})
    tiny.write_artifact(path / "good", "attribute", lambda out: write_table(out / "scores.parquet", scores))
    named = {"model": str(base), "data": str(data), "subject": "sae", "budgets": [300], "family": ["nothing"]}
    arms = {"sae": {"kind": "picked", "scores": str(path / "good")}, "nothing": {"kind": "nothing"}}
    settings = {"seeds": 4, "rank": 4, "lr": 3e-2, "epochs": 6, "dropout": 0.0, "batch": 4}
    run_plan(make_plan({"plan": {"kind": "preregister", **named, "arms": arms, **settings}}), path, CPU, say=lambda line: None)
    return path


def write_task(data: Path, task: str, items: list[dict[str, Any]]) -> None:
    (data / "tasks" / f"{task}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


@pytest.fixture(scope="module")
def compared(home: Path) -> Path:
    return run_compare(home, home / "compared")


def run_compare(home: Path, out: Path, **changes: Any) -> Path:
    plan = next(home.glob("plan-*"))
    out.mkdir(exist_ok=True)
    compare.run(compare.Config(plan=str(plan), model=str(home / "base"), data=str(home / "data"), **changes), out, CPU)
    return out


def test_an_arm_that_trains_on_nothing_answers_as_evaluate_finds(home: Path, compared: Path, tmp_path: Path) -> None:
    evaluate.run(evaluate.Config(models={"base": str(home / "base")}, data=str(home / "data")), tmp_path, CPU)
    theirs = read_table(tmp_path, "items").set_index(["task", "item"])
    mine = read_table(compared, "items").query("arm == 'nothing' and seed == 2").set_index(["task", "item"])
    assert len(mine) == len(theirs) == 16
    for column in ("correct", "correct_norm"):
        assert mine[column].tolist() == theirs.loc[mine.index, column].tolist()
    assert mine["margin"].to_numpy() == pytest.approx(theirs.loc[mine.index, "margin"].to_numpy(), abs=1e-4)


def test_training_on_the_answers_of_a_task_answers_it_better_and_no_other(home: Path, compared: Path) -> None:
    found = read_table(compared, "item_effects").set_index(["task", "measure", "arm"])
    lamp, two = found.loc[("lamp", "margin", "nothing")], found.loc[("two", "accuracy", "nothing")]
    assert lamp["low"] > 0
    assert lamp["p"] == 2 / 2**4, "the least that the signs of four seeds can give"
    assert two["p"] > 0.2
    assert found.loc[("", "margin", "nothing"), "items"] == 16
    items = read_metrics(compared)["items"]["300"]
    assert items["lamp"]["margin"]["nothing"]["effect"] == lamp["effect"]
    assert set(items) == {"all", "lamp", "two"}
    text = (compared / "report.md").read_text()
    assert "10 of lamp and 6 of two, asked of every trained arm: a secondary endpoint" in text


def test_losses_do_not_depend_on_whether_items_are_asked(home: Path, compared: Path, tmp_path: Path) -> None:
    alone = run_compare(home, tmp_path / "out", local_tasks=())
    assert (alone / "losses.parquet").read_bytes() == (compared / "losses.parquet").read_bytes()
    assert not (alone / "items.parquet").exists()
    assert "Items answered" not in (alone / "report.md").read_text()
    assert read_metrics(alone)["items"] == {}


def test_only_the_named_tasks_and_their_first_items_are_asked(home: Path, tmp_path: Path) -> None:
    out = run_compare(home, tmp_path / "out", local_tasks=("lamp",), limit=3)
    assert set(read_table(out, "items").groupby(["task", "item"]).groups) == {("lamp", i) for i in range(3)}
    assert read_table(out, "item_effects")["task"].unique().tolist() == ["lamp"], "one task is not told twice"


def test_item_effects_are_the_paired_differences_of_seeds_and_items(home: Path, compared: Path) -> None:
    items = read_table(compared, "items").query("task == 'lamp'")
    plan = compare.read_plan(
        compare.Config(plan=str(next(home.glob("plan-*"))), model=str(home / "base"), data=str(home / "data"))
    )
    found = item_effects(items, plan).set_index("measure").loc["margin"]
    left, right = (matrix(items, 300, arm, "item", "margin") for arm in ("sae", "nothing"))
    expected = paired_effect(left, right, plan.seed)
    assert (found["effect"], found["low"], found["high"]) == (expected.effect, expected.low, expected.high)
    assert (found["subject_value"], found["value"]) == (left.mean(), right.mean())


def test_the_longer_choice_may_win_by_character_and_lose_by_sum_and_ties_go_to_the_first() -> None:
    table = pd.DataFrame(
        {
            "task": "t",
            "item": [0, 0, 1, 1, 1],
            "right": [True, False, False, True, False],
            "tokens": [4, 1, 2, 2, 1],
            "characters": [20, 2, 8, 8, 3],
        }
    )
    found = judge(np.array([1.0, 2.0, 1.5, 1.5, 4.0], np.float32), table)
    assert found["correct"].tolist() == [False, False]
    assert found["correct_norm"].tolist() == [True, False]
    assert found["margin"].tolist() == [-2.0, 0.0]


def test_a_choice_longer_than_the_model_reads_is_named_before_anything_is_trained(home: Path, tmp_path: Path) -> None:
    from playpen.choice_items import encode_choices
    from playpen.models import load_tokenizer, read_context

    assert read_context(home / "base") == 256
    (tmp_path / "tasks").mkdir()
    write_task(tmp_path, "long", [{"prompt": "a", "choices": ["b", word], "answer": 0} for word in ("c", "lamp " * 300)])
    file = {"long": tmp_path / "tasks" / "long.jsonl"}
    with pytest.raises(PlaypenError, match=r"long.jsonl, line 2: a choice makes \d+ tokens, the model reads 256"):
        encode_choices(file, None, load_tokenizer(home / "base"), 256)
    assert len(encode_choices(file, 1, load_tokenizer(home / "base"), 256).ids) == 2
    with pytest.raises(PlaypenError, match="has no task 'lam'; did you mean lamp"):
        run_compare(home, tmp_path / "out", local_tasks=("lam",))
