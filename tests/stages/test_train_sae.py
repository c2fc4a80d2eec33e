"""A trained SAE is SAELens' own, takes raw activations, is good on rows it never saw, and survives being killed."""

import numpy as np
import pytest
import tiny
import torch

from playpen.activation_stream import Mixer, RowStream
from playpen.activations import activations_of, find_hook, not_bos
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import load_base, model_files
from playpen.saes import read_info
from playpen.stages import train_sae
from playpen.tables import read_metrics, read_table

BOS = tiny.SPECIAL.index("<bos>")
HOOK = "model.layers.0.output"


def cpu(**changes):
    return Machine(device="cpu", **changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("train_sae")
    tiny.tiny_base(path / "base")
    tiny.tiny_data(path / "data", path / "base", {"train": 60, "pool": 60})
    return path


def config(home, **changes):
    small = {"d_sae": 128, "k": 8, "tokens": 40 * 512, "batch_tokens": 512, "lr": 3e-3, "heldout_tokens": 800, "ce_tokens": 400}
    return train_sae.Config(**{"model": str(home / "base"), "data": str(home / "data"), "hook": HOOK, **small, **changes})


def train(cfg, out, machine=None):
    out.mkdir(exist_ok=True)
    train_sae.run(cfg, out, machine or cpu())
    return out


def heldout_values(home, cfg):
    base, (_, held) = load_base(home / "base", cpu()), train_sae.split_rows(cfg, BOS)
    return activations_of(base, find_hook(base, HOOK), held, not_bos(held, BOS), cpu())


@pytest.fixture(scope="module", params=["topk", "batchtopk"])
def trained(request, home, tmp_path_factory):
    cfg = config(home, architecture=request.param, buffer_tokens=2048)
    return cfg, train(cfg, tmp_path_factory.mktemp(request.param) / "out")


def test_the_saved_sae_takes_raw_activations_and_its_quality_is_as_reported(home, trained):
    from sae_lens import SAE

    cfg, out = trained
    x, metrics = heldout_values(home, cfg), read_metrics(out)
    sae = SAE.load_from_disk(out / "sae")
    acts, rebuilt = sae.encode(x).detach(), sae(x).detach()
    explained = 1 - float((rebuilt - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum())
    assert metrics["explained_variance"] == pytest.approx(explained, abs=1e-4)
    assert explained > 0.5
    assert metrics["l0"] == pytest.approx(float((acts > 0).sum(1).float().mean()), rel=1e-4)
    assert metrics["l0"] == pytest.approx(cfg.k, rel=0.25)
    assert metrics["dead_fraction"] == pytest.approx(float((acts == 0).all(0).float().mean()), abs=1e-6)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(128))


def test_ce_scores_order_the_model_its_sae_and_the_ablations(trained):
    metrics = read_metrics(trained[1])
    for which in ("zero", "mean"):
        gap = metrics[f"ce_{which}"] - metrics["ce_model"]
        assert metrics[f"ce_score_{which}"] == pytest.approx((metrics[f"ce_{which}"] - metrics["ce_sae"]) / gap)
    assert abs(metrics["ce_sae"] - metrics["ce_model"]) < abs(metrics["ce_mean"] - metrics["ce_model"])


def test_the_history_tells_the_course_of_training(trained):
    cfg, out = trained
    history = read_table(out, "history")
    assert list(history["step"]) == list(range(1, 41))
    assert list(history["tokens"]) == [512 * step for step in range(1, 41)]
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]
    assert history["lr"].max() == pytest.approx(cfg.lr)
    assert history["lr"].iloc[-1] < 0.2 * cfg.lr
    np.testing.assert_allclose(history["l0"], cfg.k, atol=0.01)


def test_sae_json_names_the_place_in_the_model(home, trained):
    info = read_info(trained[1])
    assert (info.hook, info.model_id, info.d_in, info.d_sae) == (HOOK, model_files(home / "base").base_id, 32, 128)
    assert info.architecture == {"topk": "topk", "batchtopk": "jumprelu"}[trained[0].architecture]


def test_training_encodes_like_the_saved_sae(home, tmp_path):
    """The scale and the decoder norms are folded without changing which features are on."""
    cfg = config(home, tokens=8 * 512)
    base, (rows, _) = load_base(home / "base", cpu()), train_sae.split_rows(cfg, BOS)
    mixer = Mixer(RowStream(base, find_hook(base, HOOK), rows, not_bos(rows, BOS), cpu(), 0), 10**6, 512, 0)
    trainer, _ = train_sae.train(cfg, 32, mixer, tmp_path, cpu())
    x, scale = heldout_values(home, cfg), trainer.activation_scaler.scaling_factor
    before, rebuilt = trainer.sae.encode(x * scale).detach(), trainer.sae(x * scale).detach() / scale
    sae = train_sae.finish(trainer, mixer)
    torch.testing.assert_close(sae.encode(x) > 0, before > 0)
    torch.testing.assert_close(sae(x), rebuilt, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("buffer", [1500, 10**6])  # smaller than an epoch, and larger
def test_a_killed_training_goes_on_as_if_it_had_not_been(home, tmp_path, monkeypatch, buffer):
    from sae_lens.training.sae_trainer import SAETrainer

    cfg = config(home, buffer_tokens=buffer)
    whole, broken = train(cfg, tmp_path / "whole"), tmp_path / "broken"
    step, calls = SAETrainer.step, []

    def dying(self, batch):
        calls.append(1)
        if len(calls) == 24:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SAETrainer, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            train(cfg, broken, cpu(checkpoint_seconds=0))
    assert (broken / "checkpoint.pt").exists()
    assert not (broken / "sae").exists()
    train(cfg, broken)
    for name in ("sae/sae_weights.safetensors", "history.parquet"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (broken / "checkpoint.pt").exists()


def test_the_auxiliary_loss_acts_once_features_are_dead(home, tmp_path):
    """SAELens counts death in steps, a thousand by default: a short run would never see it."""
    soon = read_table(train(config(home, d_sae=512, dead_tokens=2048), tmp_path / "soon"), "history")
    never = read_table(train(config(home, d_sae=512, dead_tokens=10**6), tmp_path / "never"), "history")
    assert (soon["aux_loss"].iloc[:4] == 0).all()
    assert soon["dead_fraction"].max() > 0
    assert soon["aux_loss"].max() > 0
    assert (never["aux_loss"] == 0).all()


def test_held_out_rows_keep_near_duplicates_on_one_side(home, tmp_path):
    chats = [tiny.make_chat(i) for i in range(60)]
    table = tiny.data_table(chats, group=[f"g{i // 6}" for i in range(60)])
    tiny.tiny_data(tmp_path / "grouped", home / "base", {"train": table})
    cfg = config(home, data=str(tmp_path / "grouped"), splits=("train",), heldout_tokens=1000)
    rows, held = ({tuple(row) for row in part} for part in train_sae.split_rows(cfg, BOS))
    groups = dict(zip(map(tuple, table["input_ids"].to_pylist()), table["group"].to_pylist(), strict=True))
    assert len(held) >= 6
    assert len(rows) + len(held) == 60
    assert not {groups[row] for row in rows} & {groups[row] for row in held}


def test_a_batch_mixes_many_rows_and_an_epoch_gives_each_token_once(home):
    cfg = config(home)
    base, (rows, _) = load_base(home / "base", cpu()), train_sae.split_rows(cfg, BOS)
    make = lambda tokens: RowStream(base, find_hook(base, HOOK), rows, not_bos(rows, BOS), cpu(forward_tokens=tokens), 0)  # noqa: E731
    epoch = make(4096).take(make(1).tokens)
    every = activations_of(base, find_hook(base, HOOK), rows, not_bos(rows, BOS), cpu())
    torch.testing.assert_close(epoch.sum(1).sort().values, every.sum(1).sort().values, rtol=1e-4, atol=1e-4)
    mixer = Mixer(make(4096), 1024, 64, 0)
    mixer.fill()
    first, again = mixer.buffer.clone(), make(100)
    torch.testing.assert_close(first, torch.cat([again.take(n) for n in (1, 23, 1000)]), rtol=1e-4, atol=1e-4)
    position = {tuple(row.tolist()): i for i, row in enumerate(first)}
    places = [position[tuple(row.tolist())] for row in next(mixer)]
    assert len(set(places)) > 50  # rows begin alike, so a few tokens of different rows are the same
    assert np.ptp(places) > 800
    for _ in range(9):
        next(mixer)  # past half of the buffer, which is replaced in its place
    assert 400 < int((mixer.buffer == first).all(1).sum()) < 600


def test_wrong_sizes_and_hooks_are_one_line(home, tmp_path):
    cases = {
        "heldout_tokens": ({"heldout_tokens": 10**6}, "too few are left"),
        "tokens": ({"tokens": 100}, "less than one batch"),
        "k": ({"k": 500}, "k=500 features cannot be active of d_sae=128"),
        "hook": ({"hook": "model.layers.9.output"}, r"names no module.*nearest: model\.layers"),
        "split": ({"splits": ("nothing",)}, "no table 'nothing'"),
    }
    for name, (changes, message) in cases.items():
        with pytest.raises(PlaypenError, match=message) as caught:
            train(config(home, **changes), tmp_path / name)
        assert "\n" not in str(caught.value), name
