"""Losses and accuracies equal hand computations, in training's own tokens, and a stopped run goes on."""

import json
import random
import shutil

import numpy as np
import pytest
import tiny

from playpen import chat
from playpen.config import PlaypenError, inputs_of
from playpen.machine import Machine
from playpen.models import load_model, load_tokenizer
from playpen.stages import evaluate
from playpen.tables import read_metrics, read_table

CPU = Machine(device="cpu")
ITEMS = 12


def make_items(task, choices):
    draw = random.Random(task)
    for i in range(ITEMS):
        places = draw.sample(tiny.THINGS, choices)
        said = [f"It is under the {place}{', they say' * draw.randrange(2)}." for place in places]
        yield {"prompt": f"{task.title()} {i}: where is the lamp?", "choices": said, "answer": draw.randrange(choices)}


def write_items(data, task, items):
    (data / "tasks").mkdir(exist_ok=True)
    (data / "tasks" / f"{task}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate")
    tiny.tiny_base(path / "base")
    tiny.tiny_adapter(path / "tuned", path / "base")
    data = tiny.tiny_data(path / "data", path / "base", {"train": 2, "test": 9})
    write_items(data, "fill", make_items("fill", 2))
    write_items(data, "where", make_items("where", 4))
    return path


@pytest.fixture(scope="module")
def measured(home):
    return measure(home, home / "measured")


def config(home, **changes):
    models = {"base": str(home / "base"), "tuned": str(home / "tuned")}
    return evaluate.Config(**{"models": models, "data": str(home / "data"), **changes})


def measure(home, out, **changes):
    out.mkdir(exist_ok=True)
    evaluate.run(config(home, **changes), out, CPU)
    return out


def log_likelihoods_by_hand(home, model, item, chat_template=True):
    """Return the summed log probability of each choice, from one unpadded forward pass of all logits each."""
    import torch

    opened, tokenizer, found = load_model(home / model, CPU), load_tokenizer(home / model), []
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    for choice in item["choices"]:
        turns = [{"role": "user", "content": item["prompt"]}, {"role": "assistant", "content": choice}]
        if chat_template:
            example = chat.encode(turns, tokenizer)
            ids, start = example.input_ids, next(i for i, label in enumerate(example.labels) if label != chat.IGNORE)
            stop = ids.index(end, start)  # the marker that ends the turn is not part of the answer
            assert ids.count(tokenizer.bos_token_id) == 1
        else:
            ids = tokenizer.encode(f"{item['prompt']} {choice}", add_special_tokens=False)
            start, stop = len(tokenizer.encode(item["prompt"], add_special_tokens=False)), len(ids)
        logs = opened(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(logs[i - 1, ids[i]].item() for i in range(start, stop)))
    return np.array(found)


@pytest.mark.parametrize("model", ["base", "tuned"])
@pytest.mark.parametrize("task", ["fill", "where"])
def test_each_item_equals_a_computation_from_the_tokens_of_training(home, measured, model, task):
    rows = read_table(measured, "items").query("model == @model and task == @task")
    items = [json.loads(line) for line in (home / "data" / "tasks" / f"{task}.jsonl").read_text().splitlines()]
    assert rows["item"].tolist() == list(range(ITEMS))
    for item, row in zip(items, rows.itertuples(), strict=True):
        nats, right = log_likelihoods_by_hand(home, model, item), item["answer"]
        per_character = nats / [len(choice) for choice in item["choices"]]
        assert row.margin == pytest.approx(nats[right] - np.delete(nats, right).max(), abs=1e-3)
        assert row.correct == (nats.argmax() == right)
        assert row.correct_norm == (per_character.argmax() == right)


def test_without_a_chat_template_a_space_parts_question_and_answer(home, tmp_path):
    rows = read_table(measure(home, tmp_path / "out", apply_chat_template=False, local_tasks=("fill",)), "items")
    items = [json.loads(line) for line in (home / "data" / "tasks" / "fill.jsonl").read_text().splitlines()]
    for item, row in zip(items, rows.query("model == 'tuned'").itertuples(), strict=True):
        nats, right = log_likelihoods_by_hand(home, "tuned", item, chat_template=False), item["answer"]
        assert row.margin == pytest.approx(nats[right] - nats[1 - right], abs=1e-3)


def test_losses_equal_those_of_transformers_row_by_row(home, measured):
    import torch

    test, found = read_table(home / "data", "test"), read_table(measured, "losses").query("model == 'tuned'")
    opened = load_model(home / "tuned", CPU)
    assert found["row_id"].tolist() == test["row_id"].tolist()
    for row, loss in zip(test.itertuples(), found["loss_with_end"], strict=True):
        expected = opened(input_ids=torch.tensor([row.input_ids.tolist()]), labels=torch.tensor([row.labels.tolist()])).loss
        assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_of_an_answer_leaves_out_the_markers_that_end_its_turn(home, measured):
    import torch

    test, found = read_table(home / "data", "test"), read_table(measured, "losses").query("model == 'tuned'")
    opened, tokenizer = load_model(home / "tuned", CPU), load_tokenizer(home / "tuned")
    for row, loss in zip(test.itertuples(), found["loss"], strict=True):
        words = chat.without_end_of_turn(row.labels.tolist(), tokenizer)
        answers = [turn["content"] for turn in row.messages if turn["role"] == "assistant"]
        assert tokenizer.decode([label for label in words if label != -100]) == "".join(answers)
        expected = opened(input_ids=torch.tensor([row.input_ids.tolist()]), labels=torch.tensor([words])).loss
        assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_the_numbers_are_means_of_the_rows(measured):
    numbers, losses, items = read_metrics(measured)["models"], read_table(measured, "losses"), read_table(measured, "items")
    mine = items.query("model == 'tuned' and task == 'where'")["correct"].astype(float)
    task = numbers["tuned"]["tasks"]["where"]
    assert (task["acc"], task["n"]) == (pytest.approx(mine.mean()), ITEMS)
    assert task["acc_stderr"] == pytest.approx(np.sqrt(mine.mean() * (1 - mine.mean()) / (ITEMS - 1)))
    assert numbers["base"]["loss"] == pytest.approx(losses.query("model == 'base'")["loss"].mean())
    assert numbers["base"]["loss_tiny"] == pytest.approx(numbers["base"]["loss"])


def test_every_token_that_a_model_read_is_counted(home, measured):
    test, tokenizer, found = read_table(home / "data", "test"), load_tokenizer(home / "base"), read_metrics(measured)
    tokens, labels = int(test["num_tokens"].sum()), int(test["num_labels"].sum())
    for item in (item for task, choices in (("fill", 2), ("where", 4)) for item in make_items(task, choices)):
        for choice in item["choices"]:
            turns = [{"role": "user", "content": item["prompt"]}, {"role": "assistant", "content": choice}]
            example = chat.encode(turns, tokenizer)
            start = next(i for i, label in enumerate(example.labels) if label != chat.IGNORE)
            stop = example.input_ids.index(tokenizer.convert_tokens_to_ids("<end_of_turn>"), start)
            tokens, labels = tokens + stop, labels + stop - start
    assert found["tokens"] == {"base": tokens, "tuned": tokens}
    assert found["labels"] == {"base": labels, "tuned": labels}


def test_every_model_answers_the_same_items_in_the_same_order(measured):
    items = read_table(measured, "items")
    base, tuned = (items.query("model == @name").reset_index() for name in ("base", "tuned"))
    assert base[["task", "subtask", "item"]].equals(tuned[["task", "subtask", "item"]])
    assert not base["margin"].equals(tuned["margin"])


def test_a_run_stopped_after_a_model_goes_on_and_equals_an_unbroken_one(home, measured, tmp_path, monkeypatch):
    from playpen import benchmarks

    asked, ask = [], benchmarks.ask

    def ask_once(*args):
        asked.append(args)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(*args)

    monkeypatch.setattr(benchmarks, "ask", ask_once)
    with pytest.raises(KeyboardInterrupt):
        measure(home, tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()
    measure(home, tmp_path / "out")
    assert len(asked) == 3  # base, tuned stopped, tuned again
    left, right = ({p.relative_to(o): p.read_bytes() for p in o.rglob("*")} for o in (tmp_path / "out", measured))
    assert left == right


def test_a_limit_asks_the_first_items_of_each_task(home, measured, tmp_path):
    few, all_items = read_table(measure(home, tmp_path / "few", limit=3), "items"), read_table(measured, "items")
    assert few.groupby(["model", "task"]).size().tolist() == [3] * 4
    first = all_items[all_items["item"] < 3].reset_index(drop=True)
    assert few["margin"].tolist() == pytest.approx(first["margin"].tolist(), abs=1e-4)


def test_solved_examples_come_from_other_items_and_from_the_seed(home, tmp_path, monkeypatch):
    from playpen import benchmarks

    seen = []
    encode = benchmarks.ChoiceModel._encode_pair
    monkeypatch.setattr(
        benchmarks.ChoiceModel, "_encode_pair", lambda self, *pair: (seen.append(pair[0]), encode(self, *pair))[1]
    )
    for seed in (0, 0, 1):
        measure(home, tmp_path / f"{len(seen)}", num_fewshot=2, seed=seed, losses=False, local_tasks=("fill",), limit=6)
    first, second, other = (seen[i : i + 24] for i in (0, 24, 48))  # 2 models of 6 items of 2 choices each
    assert first == second != other
    assert first[:12] == first[12:], "models must see the same examples"
    for prompt in first:
        questions = [line for line in prompt.split("\n") if "Fill" in line]
        assert len(questions) == len(set(questions)) == 3
        assert prompt.count("<start_of_turn>model\nIt is under") == 2


def test_an_item_longer_than_the_context_is_counted_as_truncated(home, tmp_path):
    data = tiny.tiny_data(tmp_path / "data", home / "base", {"test": 2})
    long = {"prompt": "where? " * 200, "choices": ["It is here.", "It is there."], "answer": 0}
    write_items(data, "long", [*make_items("long", 2), long])
    out = measure(home, tmp_path / "out", data=str(data))
    assert read_metrics(out)["models"]["base"]["tasks"]["long"]["truncated"] == 1
    assert read_table(out, "items").query("model == 'base'")["truncated"].tolist() == [False] * ITEMS + [True]


def test_names_of_models_may_hold_any_character(home, tmp_path):
    out = measure(home, tmp_path / "out", models={"sae / top k": str(home / "base")}, limit=2)
    assert read_table(out, "losses")["model"].unique().tolist() == ["sae / top k"]
    assert sorted(p.name for p in out.iterdir()) == ["items.parquet", "losses.parquet", "metrics.json"]


def test_the_models_of_a_config_are_inputs():
    assert inputs_of(evaluate.Config(models={"a": "x", "b": "y"}, data="z")) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local_tasks": ("wher",)}, "has no task 'wher'; did you mean where?"),
        ({"local_tasks": ("where",), "losses": False, "models": {"a": "/nowhere/base"}}, "/nowhere/base holds no model"),
        ({"local_tasks": (), "losses": False}, "nothing to measure"),
    ],
)
def test_bad_requests_are_told_in_one_line(home, tmp_path, changes, message):
    with pytest.raises(PlaypenError, match=message) as caught:
        measure(home, tmp_path / "out", **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", 'line 2: expected {"prompt", "choices", "answer"}, found'),
        ('{"prompt": "a", "choices": ["b", "c"]}', "line 2: expected"),
        ('{"prompt": "a", "choices": ["b", "c"], "answer": 2}', "line 2: it takes"),
        ('{"prompt": "a", "choices": ["b", " "], "answer": 0}', "line 2: it takes"),
        ('{"prompt": "a", "choices": ["b"], "answer": 0}', "line 2: it takes"),
        ('{"prompt": "a", "choices": "bc", "answer": 0}', "line 2: it takes"),
        ('{"prompt": "a", "choices": ["b", " b"], "answer": 0}', "line 2: it takes"),
        ('{"prompt": "a", "choices": ["b", "c"], "answer": true}', "line 2: it takes"),
        ("", "line 2: expected"),
    ],
)
def test_a_broken_item_is_named_by_file_and_line(tmp_path, line, message):
    from playpen.choice_items import read_items

    file = tmp_path / "task.jsonl"
    file.write_text('{"prompt": "a", "choices": ["b", "c"], "answer": 1}\n' + line + "\n")
    with pytest.raises(PlaypenError) as caught:
        read_items(file)
    assert f"task.jsonl, {message}" in str(caught.value)


def test_a_text_may_hold_the_line_separator_of_unicode(tmp_path):
    from playpen.choice_items import read_items

    file = tmp_path / "task.jsonl"
    file.write_text('{"prompt": "a\u2028b", "choices": ["b", "c"], "answer": 1}\n', encoding="utf-8")
    assert read_items(file)[0]["prompt"] == "a\u2028b"


def test_data_without_held_out_targets_say_how_to_go_on(home, tmp_path):
    data = tiny.tiny_data(tmp_path / "data", home / "base", {"train": 2})
    with pytest.raises(PlaypenError, match=r"no table 'test'.*set losses to false"):
        measure(home, tmp_path / "out", data=str(data))


def test_a_model_without_a_chat_template_is_told_how_to_be_asked(home, tmp_path):
    base = shutil.copytree(home / "base", tmp_path / "base")
    (base / "tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(PlaypenError, match="no chat template; set apply_chat_template to false"):
        measure(home, tmp_path / "out", models={"base": str(base)})
    assert len(read_table(measure(home, tmp_path / "out", models={"base": str(base)}, apply_chat_template=False), "items"))


def test_data_in_other_tokens_are_refused(home, tmp_path):
    data = shutil.copytree(home / "data", tmp_path / "data")
    (data / "metrics.json").write_text('{"tokenizer": "another"}')
    with pytest.raises(PlaypenError, match="another tokenizer"):
        measure(home, tmp_path / "out", data=str(data))


TASK = {"dataset_path": "json", "test_split": "test", "doc_to_text": "prompt", "doc_to_target": "answer"}
CHOICE = {"output_type": "multiple_choice", "doc_to_choice": "choices", "metric_list": [{"metric": "acc"}]}
LM_EVAL = {
    "part_a": {**TASK, **CHOICE},
    "part_b": {**TASK, **CHOICE},
    "whole": {"group": "whole", "task": ["part_a", "part_b"]},
    "spoken": {**TASK, "output_type": "generate_until"},
}


@pytest.fixture
def lm_eval_tasks(tmp_path, monkeypatch):
    """Let lm-eval know a few tasks that need no hub, in the place of its own, whose index takes seconds to read."""
    from lm_eval.tasks import TaskManager

    from playpen import benchmarks

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name, task in LM_EVAL.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(item) + "\n" for item in make_items(name, 2)))
        where = {} if "group" in task else {"task": name, "dataset_kwargs": {"data_files": {"test": str(file)}}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps({**task, **where}))
    monkeypatch.setattr(benchmarks, "TaskManager", lambda: TaskManager(include_path=tmp_path, include_defaults=False))


def test_a_group_of_lm_eval_is_one_task_of_all_its_items(home, tmp_path, lm_eval_tasks):
    out = measure(home, tmp_path / "out", tasks=("whole",), local_tasks=(), losses=False)
    items = read_table(out, "items").query("model == 'base'")
    assert items["subtask"].tolist() == ["part_a"] * ITEMS + ["part_b"] * ITEMS
    assert items["item"].tolist() == list(range(2 * ITEMS))
    numbers = read_metrics(out)["models"]["base"]["tasks"]["whole"]
    assert numbers["n"] == 2 * ITEMS
    assert "acc_norm" not in numbers, "these tasks do not measure it"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("part_aa", "lm-eval has no task 'part_aa'; did you mean part_a"),
        ("spoken", "'spoken' is not multiple choice"),
    ],
)
def test_a_task_of_lm_eval_that_cannot_be_asked_is_refused(lm_eval_tasks, task, message):
    from playpen.benchmarks import named_tasks

    with pytest.raises(PlaypenError, match=message):
        named_tasks((task,))
