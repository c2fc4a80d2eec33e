"""Two processes make what one makes; a mistake is one line whoever of them meets it, and none outlives the run that started it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from playpen import processes
from playpen.config import PlaypenError
from playpen.tables import read_metrics, read_table, write_json

HERE = Path(__file__).parent
CPU = {"device": "cpu"}
SORTS = ("topk", "batchtopk", "matryoshka", "jumprelu")
SAE = "sae/sae_weights.safetensors"
TUNED = "adapter/adapter_model.safetensors"


def finetune_calls(home):
    """21 rows in batches of 4, so that the last batch has one row, for two processes."""
    shared = {"model": str(home / "base"), "data": str(home / "data"), "batch": 4, "epochs": 2, "lr": 1e-2, "rank": 4}
    plain = {"kind": "finetune", "config": {**shared, "dropout": 0.0}, "machine": CPU, "imports": ["playpen.label_trainer"]}
    dropping = {**plain, "config": {**shared, "dropout": 0.2}, "machine": {**CPU, "train_rows": 1}}
    stopped = {**dropping, "dies_at": ["playpen.training.SaveByClock", "on_step_end", 9]}  # of 12, in the second epoch
    return {"tuned": plain, "dropping": dropping, "stopped": stopped}


def sae_calls(home):
    """Each sort of SAE; some features of the first are dead, so that the auxiliary loss acts."""
    small = {"d_sae": 256, "k": 8, "tokens": 30 * 256, "batch_tokens": 256, "lr": 3e-3, "heldout_tokens": 400, "ce_tokens": 200}
    shared = {"model": str(home / "base"), "data": str(home / "data"), "hook": "model.layers.0.output", "splits": ["train"]}
    more = {"machine": CPU, "imports": ["playpen.learners"]}
    plain = {
        "kind": "train-sae",
        "config": {**shared, **small, "buffer_tokens": 600, "evaluations": 1, "dead_tokens": 1024},
        **more,
    }
    found = {sort: {**plain, "config": {**plain["config"], "architecture": sort}} for sort in SORTS}
    return {**found, "stopped_sae": {**plain, "dies_at": ["playpen.sae_training.Trainer", "step", 21]}}


def evaluate_call(home):
    models = {"base": str(home / "base"), "tuned": str(home / "adapter")}
    return {
        "kind": "evaluate",
        "config": {"models": models, "data": str(home / "data")},
        "machine": CPU,
        "imports": ["playpen.benchmarks"],
    }


def attribute_calls(home):
    """21 rows in shards of 4, so that one process has three of them and the other three, the last of one row."""
    shared = {
        "model": str(home / "adapter"),
        "data": str(home / "data"),
        "split": "train",
        "per_query": True,
        "unit_normalize": True,
    }
    more = {"machine": CPU, "imports": ["playpen.gradients"], "sets": ["playpen.attribution_passes", "SHARD", 4]}
    plain = {"kind": "attribute", "config": shared, **more}
    prepared = {**plain, "config": {**shared, "preconditioner": "autocorrelation", "projection_dim": 8}}
    factored = {
        **plain,
        "config": {**shared, "preconditioner": "ekfac", "projection_dim": 0, "checkpoints": [str(home / "adapter")]},
    }
    stopped = {**plain, "dies_at": ["playpen.gradients.Scoring", "__call__", 2]}
    return {"attributed": plain, "prepared": prepared, "factored": factored, "stopped_scores": stopped}


def write_task(data):
    (data / "tasks").mkdir()
    places = list(tiny.THINGS)
    items = [{"prompt": f"{i}: where?", "choices": [places[i], f"the {places[i - 1]}"], "answer": i % 2} for i in range(7)]
    (data / "tasks" / "where.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with what one process made, `one`, and what two made, `two`."""
    home = tmp_path_factory.mktemp("processes")
    tiny.tiny_base(home / "base")
    tiny.tiny_adapter(home / "adapter", home / "base")
    write_task(tiny.tiny_data(home / "data", home / "base", {"train": 21, "test": 9, "query": 5}))
    calls = {**finetune_calls(home), **sae_calls(home), **attribute_calls(home), "measured": evaluate_call(home)}
    write_json(home / "calls.json", calls)
    command = [sys.executable, str(HERE / "two_processes.py"), str(home / "calls.json"), str(home)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return home


def files(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def assert_near(one, two, rtol, atol):
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_two_processes_finetune_as_one_does(made):
    one, two = made / "one" / "tuned", made / "two" / "tuned"
    assert_near(load_file(one / TUNED), load_file(two / TUNED), 0, 1e-4)
    for name in ("step", "epoch", "loss", "learning_rate", "grad_norm"):
        assert read_table(two, "history")[name].tolist() == pytest.approx(read_table(one, "history")[name].tolist(), rel=1e-4)
    assert files(one) == files(two)
    same = [{name: value for name, value in read_metrics(each).items() if name != "train_seconds"} for each in (one, two)]
    assert same[1] == pytest.approx(same[0], rel=1e-4)
    assert same[1]["steps"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("number", ["one", "two"])
def test_a_finetuning_stopped_in_its_second_epoch_goes_on_in_that_epochs_order(made, number):
    """With dropout, so that the random numbers of every process have to be those that they would have been."""
    whole, stopped = (load_file(made / number / name / TUNED) for name in ("dropping", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert any(not torch.equal(whole[name], value) for name, value in load_file(made / number / "tuned" / TUNED).items())


@pytest.mark.slow
@pytest.mark.parametrize("sort", SORTS)
def test_two_processes_train_a_sae_as_one_does(made, sort):
    one, two = made / "one" / sort, made / "two" / sort
    assert files(one) == files(two)
    histories = [read_table(each, "history") for each in (one, two)]
    assert histories[0]["dead_fraction"].max() > 0
    assert sort == "jumprelu" or histories[0]["aux_loss"].max() > 0
    for name in ("loss", "l0", "explained_variance", "aux_loss", "dead_fraction"):
        assert histories[1][name].tolist() == pytest.approx(histories[0][name].tolist(), rel=1e-4, abs=1e-4), name
    for name in ("step", "tokens", "lr"):
        assert histories[1][name].tolist() == histories[0][name].tolist()
    assert_near(load_file(one / SAE), load_file(two / SAE), 0, 1e-4)
    numbers = [read_metrics(each) for each in (one, two)]
    assert numbers[0]["sources"] == numbers[1]["sources"]
    for name in ("explained_variance", "l0", "ce_sae", "scale"):
        assert numbers[1][name] == pytest.approx(numbers[0][name], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["one", "two"])
def test_a_stopped_sae_ends_like_one_that_was_not(made, number):
    one, two = made / number / "topk", made / number / "stopped_sae"
    assert files(one) == files(two)
    for name in (SAE, "history.parquet", "evaluation.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.slow
def test_two_processes_measure_what_one_does(made):
    one, two = made / "one" / "measured", made / "two" / "measured"
    assert files(one) == files(two) == {"losses.parquet", "items.parquet", "metrics.json"}
    for table, close in (("losses", ["loss", "loss_with_end"]), ("items", ["margin"])):
        left, right = read_table(one, table), read_table(two, table)
        assert left.drop(columns=close).equals(right.drop(columns=close))
        for name in close:
            assert right[name].tolist() == pytest.approx(left[name].tolist(), abs=1e-4)
    assert read_metrics(one)["tokens"] == read_metrics(two)["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attributed", "prepared", "factored"])
def test_two_processes_attribute_as_one_does(made, name):
    one, two = made / "one" / name, made / "two" / name
    assert (
        files(one)
        == files(two)
        == {*map("{}.parquet".format, ("scores", "query_scores")), "row_diagnostics.jsonl", *("summary.json", "metrics.json")}
    )
    for table, column in (("scores", "score"), ("query_scores", "scores")):
        left, right = read_table(one, table), read_table(two, table)
        assert left["row_id"].tolist() == right["row_id"].tolist()
        assert np.stack(left[column]) == pytest.approx(np.stack(right[column]), rel=1e-5, abs=1e-7)
    numbers = [{k: v for k, v in read_metrics(each).items() if k != "seconds"} for each in (one, two)]
    assert numbers[0]["settings"] == numbers[1]["settings"]
    assert numbers[0]["tokens"] == numbers[1]["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("number", ["one", "two"])
def test_an_attribution_stopped_in_its_second_shard_ends_like_one_that_was_not(made, number):
    for table in ("scores", "query_scores"):
        whole, stopped = (made / number / name / f"{table}.parquet" for name in ("attributed", "stopped_scores"))
        assert whole.read_bytes() == stopped.read_bytes()


def test_every_row_is_trained_on_once_an_epoch_and_every_process_takes_as_many_micro_batches(monkeypatch):
    from playpen.shared_batches import NOBODY, Shares

    found = []
    for rank in range(3):
        monkeypatch.setattr(processes, "count", lambda: 3)
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares = Shares(list(range(31)), 31, 12, 2)  # type: ignore[arg-type]
        found.append(list(shares))
        assert len(found[-1]) == len(shares) == 2 + 2 + 2  # of 12, 12 and 7 rows
    assert sorted(row for mine in found for micro in mine for row in micro if row != NOBODY) == list(range(31))
    assert {row for mine in found for micro in mine[:2] for row in micro} == set(range(12)), "a step takes one batch"


def test_a_mistake_that_the_processes_meet_is_one_line_of_the_caller(tmp_path, capfd):
    call = tmp_path / "x.call.json"
    write_json(call, {"kind": "finetune", "config": {"modle": "x"}, "out": str(tmp_path), "machine": {"processes": 2}})
    with pytest.raises(PlaypenError, match="unknown field 'modle'; did you mean model"):
        processes.torchrun("finetune", call, 2)
    assert "Traceback" not in capfd.readouterr().err
    assert files(tmp_path) == {"x.call.json"}


CHILD = """
import sys, time
from playpen import processes
processes.end_with(int(sys.argv[1]))
print("started", flush=True)
time.sleep(20)
print("outlived it")
"""
PARENT = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid())])"


def test_no_process_outlives_the_run_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    assert parent.stdout.readline() == "started\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert parent.stdout.read() == ""  # until the child, which holds the other end, has ended


@pytest.mark.slow
def test_torchrun_seals_what_one_process_seals_under_the_same_name(tmp_path, capfd):
    from playpen import cli

    home = tmp_path
    tiny.tiny_base(home / "base")
    tiny.tiny_data(home / "data", home / "base", {"train": 8})
    flags = ["--model", str(home / "base"), "--data", str(home / "data"), "--epochs", "1", "--rank", "4", "--dropout", "0"]
    for number in (1, 2):
        place = ["--root", str(home / str(number)), "--machine.device", "cpu", "--machine.processes", str(number)]
        cli.main(["finetune", *flags, "--batch", "4", *place])
    (one,), (two,) = (list((home / number).glob("finetune-*")) for number in "12")
    assert one.name == two.name
    assert_near(load_file(one / TUNED), load_file(two / TUNED), 0, 1e-4)
    assert json.loads((two / "manifest.json").read_text())["provenance"]["machine"]["processes"] == 2
    with pytest.raises(SystemExit):
        cli.main(["finetune", *flags, "--batch", "3", "--root", str(home), "--machine.device", "cpu", "--machine.processes", "2"])
    said = capfd.readouterr().err
    assert "playpen: a batch of 3 rows cannot be shared evenly by 2 processes; change one of them" in said
    assert "Traceback" not in said
