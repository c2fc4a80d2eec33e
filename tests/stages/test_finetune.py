"""The stage finetune: it trains what it should, masks what it should, and ends alike after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from transformers import TrainerState

from playpen.config import PlaypenError
from playpen.losses import row_losses
from playpen.machine import Machine
from playpen.models import load_model
from playpen.stages import finetune
from playpen.stages.finetune import Config
from playpen.tables import read_metrics, read_table, write_table
from playpen.trackers import Tracker
from playpen.training import CopyHistory

CPU = Machine(device="cpu", train_rows=4)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finetune")
    base = tiny.tiny_base(path / "base")
    tiny.tiny_data(path / "data", base, {"train": 24, "pool": 16})
    return path


def train(home: Path, path: Path, machine: Machine = CPU, **fields: object) -> Path:
    config = Config(
        model=str(home / "base"), data=str(home / "data"), **{"batch": 4, "epochs": 1, "lr": 1e-2, "rank": 4, **fields}
    )
    return tiny.write_artifact(path, "finetune", lambda out: finetune.run(config, out, machine))


def weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path / "adapter" / "adapter_model.safetensors")


def mean_loss(home: Path, model: Path, split: str = "train") -> float:
    rows = read_table(home / "data", split)
    return float(row_losses(load_model(model, CPU), rows["input_ids"].tolist(), rows["labels"].tolist(), CPU).mean())


def write_selection(path: Path, row_ids: list[str], kept: list[bool]) -> Path:
    table = pd.DataFrame({"row_id": row_ids, "kept": kept})
    return tiny.write_artifact(path, "select", lambda out: write_table(out / "selection.parquet", table))


def test_training_lowers_the_loss_on_its_rows_and_keeps_a_history(home: Path, tmp_path: Path) -> None:
    made = train(home, tmp_path / "first", epochs=4)
    assert mean_loss(home, made) < mean_loss(home, home / "base") - 0.2
    history = read_table(made, "history")
    assert history["step"].iloc[-1] == 24
    assert history["loss"].iloc[-3:].mean() < history["loss"].iloc[:3].mean()


def test_the_tracker_holds_the_history_when_the_checkpoints_are_gone(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    made = train(home, tmp_path / "first", replace(CPU, tracker="tensorboard", checkpoint_seconds=0))
    events, history = EventAccumulator(str(tmp_path / "tensorboard" / "first")), read_table(made, "history")
    events.Reload()
    for name in ("loss", "learning_rate", "grad_norm"):
        points = events.Scalars(name)
        assert [point.step for point in points] == history["step"].tolist()
        assert [point.value for point in points] == pytest.approx(history[name].tolist())


def test_a_run_gone_on_with_copies_its_whole_history() -> None:
    found: list[tuple[int, dict]] = []
    copy = CopyHistory(Tracker(lambda step, values: found.append((step, values)), lambda failed: None))
    state = TrainerState(log_history=[{"step": step, "loss": 1 / step} for step in (1, 2, 3)])
    copy.on_log(None, state, None)
    state.log_history += [{"step": 4, "loss": 0.25}, {"step": 4, "train_runtime": 9.0}]
    copy.on_log(None, state, None)
    assert found == [(step, {"loss": 1 / step}) for step in (1, 2, 3, 4)]


def test_the_first_step_of_a_short_training_moves_the_weights(home: Path, tmp_path: Path) -> None:
    made = train(home, tmp_path / "one", batch=24)
    assert read_metrics(made)["steps"] == 1
    assert all(value.abs().max() > 0 for name, value in weights(made).items() if "lora_B" in name), "B starts at zero"


def test_a_training_without_triton_takes_the_steps_of_plain_trl(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches of three rows of six, so that the mean over all labels of a step is not that of its parts."""
    from trl.trainer.sft_trainer import SFTTrainer

    from playpen import label_trainer

    fields = {"batch": 6, "epochs": 2, "dropout": 0.0}
    ours = train(home, tmp_path / "ours", Machine(device="cpu", train_rows=3), **fields)
    monkeypatch.setattr(label_trainer, "LabelTrainer", SFTTrainer)
    theirs = train(home, tmp_path / "theirs", Machine(device="cpu", train_rows=3), **fields)
    for name in ("step", "loss", "learning_rate", "grad_norm"):
        one, two = (read_table(made, "history")[name].tolist() for made in (ours, theirs))
        assert one == pytest.approx(two, rel=1e-4)
    assert all(torch.allclose(value, weights(theirs)[key], atol=1e-4) for key, value in weights(ours).items())


def test_the_tokenizer_lies_with_the_adapter(home: Path, tmp_path: Path) -> None:
    made = train(home, tmp_path / "first", epochs=0.2)
    assert (made / "adapter" / "tokenizer.json").exists()
    assert (made / "adapter" / "chat_template.jinja").exists()


def test_the_same_config_gives_the_same_weights_and_another_seed_others(home: Path, tmp_path: Path) -> None:
    one, two, other = (weights(train(home, tmp_path / name, seed=seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_an_adapter_names_its_layers_in_one_order_in_every_process(home: Path, tmp_path: Path) -> None:
    modules = ("v_proj", "up_proj", "q_proj", "o_proj", "k_proj", "gate_proj", "down_proj")
    first = train(home, tmp_path / "first", rank=16, target_modules=modules)
    more = train(home, tmp_path / "more", rank=16, init=str(first))
    for made in (first, more):
        assert json.loads((made / "adapter" / "adapter_config.json").read_text())["target_modules"] == sorted(modules)


def test_the_micro_batch_does_not_change_the_result(home: Path, tmp_path: Path) -> None:
    whole = weights(train(home, tmp_path / "whole", dropout=0.0))
    parts = weights(train(home, tmp_path / "parts", Machine(device="cpu", train_rows=2), dropout=0.0))
    assert all(torch.allclose(whole[key], parts[key], atol=1e-4) for key in whole)


def test_only_the_rows_that_a_selection_keeps_are_trained_on(home: Path, tmp_path: Path) -> None:
    ids = read_table(home / "data", "pool")["row_id"].tolist()
    write_selection(tmp_path / "chosen", ids, [i < 5 for i in range(len(ids))])
    made = train(home, tmp_path / "arm", splits=("pool",), keep=str(tmp_path / "chosen"))
    assert read_metrics(made)["rows"] == 5


def test_init_goes_on_from_an_adapter_and_leaves_the_base_alone(home: Path, tmp_path: Path) -> None:
    first = train(home, tmp_path / "first", epochs=2)
    more = train(home, tmp_path / "more", epochs=1, lr=1e-9, rank=16, init=str(first))
    old, new = weights(first), weights(more)
    assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)


def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(home: Path, tmp_path: Path) -> None:
    settings = {"model": str(home / "base"), "data": str(home / "data"), "batch": 4, "epochs": 8, "lr": 1e-2, "rank": 4}
    driver = (
        "import sys; from pathlib import Path; from playpen.machine import Machine; from playpen.stages import finetune as f\n"
        "out = Path(sys.argv[1]); out.mkdir()\n"
        f"f.run(f.Config(**{settings!r}), out, Machine(device='cpu', train_rows=4, checkpoint_seconds=0))"
    )
    part, whole = tmp_path / "part", tmp_path / "whole"
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.Popen([sys.executable, "-c", driver, str(part)], env=env, stderr=subprocess.DEVNULL)
    while killed.poll() is None and len(list(part.glob("checkpoints/checkpoint-*/trainer_state.json"))) == 0:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (part / "adapter").exists(), "the run ended before it could be killed"
    whole.mkdir()
    for out in (part, whole):
        finetune.run(Config(**settings), out, Machine(device="cpu", train_rows=4))
    one, two = weights(part), weights(whole)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert read_table(part, "history")["loss"].tolist() == read_table(whole, "history")["loss"].tolist()


@pytest.mark.parametrize("mistake", ["selection", "adapter", "modules", "base", "rank"])
def test_a_wrong_input_is_one_line(home: Path, tmp_path: Path, mistake: str) -> None:
    strange = tiny.tiny_base(tmp_path / "other_base", seed=5)
    tiny.tiny_adapter(tmp_path / "other_adapter", strange)
    tiny.tiny_adapter(tmp_path / "own", home / "base")
    write_selection(tmp_path / "other", ["0" * 16], [True])
    fields, message = {
        "selection": ({"keep": str(tmp_path / "other")}, "keeps 1 rows that train of"),
        "adapter": ({"init": str(tmp_path / "other_adapter"), "rank": 16}, "fits only the base"),
        "modules": ({"target_modules": ("c_attn",)}, "no module named c_attn"),
        "base": ({"init": str(home / "base"), "rank": 16}, "has no adapter"),
        "rank": ({"init": str(tmp_path / "own")}, "rank cannot be set beside init"),
    }[mistake]
    with pytest.raises(PlaypenError, match=message):
        train(home, tmp_path / "made", **fields)


def test_the_loss_on_val_rows_is_that_of_the_finished_adapter(home: Path, tmp_path: Path) -> None:
    tiny.tiny_data(tmp_path / "data", home / "base", {"train": 12, "val": 6})
    config = Config(model=str(home / "base"), data=str(tmp_path / "data"), batch=4, epochs=1, lr=1e-2, rank=4, val_rows=4)
    made = tiny.write_artifact(tmp_path / "first", "finetune", lambda out: finetune.run(config, out, CPU))
    rows = read_table(tmp_path / "data", "val").head(4)
    losses = row_losses(load_model(made, CPU), rows["input_ids"].tolist(), rows["labels"].tolist(), CPU)
    assert read_metrics(made)["val_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)


def test_data_of_another_tokenizer_is_one_line(home: Path, tmp_path: Path) -> None:
    made = tiny.write_artifact(
        tmp_path / "strange", "build-data", lambda out: (out / "metrics.json").write_text('{"tokenizer": "0"}') and None
    )
    with pytest.raises(PlaypenError, match="was tokenised with another tokenizer"):
        finetune.run(Config(model=str(home / "base"), data=str(made)), tmp_path, CPU)


def test_a_checkpoint_cut_off_while_it_was_written_is_passed_over(tmp_path: Path) -> None:
    from playpen.training import last_checkpoint

    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-9").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")


def test_the_moments_kept_after_one_step_are_adams_of_one_gradient(home: Path, tmp_path: Path) -> None:
    from playpen.moments import read_moments

    made = train(home, tmp_path / "one", batch=24, dropout=0.0, keep_moments=True)
    kept = read_moments(made)
    assert (kept.step, kept.beta1, kept.beta2, kept.eps) == (1, 0.9, 0.999, 1e-8)
    assert set(kept.first) == set(kept.second) == set(weights(made))
    for name, first in kept.first.items():
        assert first.shape == weights(made)[name].shape
        assert torch.allclose((first / 0.1) ** 2, kept.second[name] / 0.001, rtol=1e-4, atol=1e-12)
    assert any(first.abs().max() > 0 for first in kept.first.values())


def test_moments_are_kept_only_when_asked_for_and_change_nothing(home: Path, tmp_path: Path) -> None:
    with_them, without = (train(home, tmp_path / str(keep), keep_moments=keep) for keep in (True, False))
    assert (with_them / "optimizer.safetensors").exists()
    assert not (without / "optimizer.safetensors").exists()
    one, two = weights(with_them), weights(without)
    assert all(torch.equal(one[key], two[key]) for key in one)
