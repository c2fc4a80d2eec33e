"""A trained SAE is SAELens' own, takes raw activations, is good on rows it never saw, and survives being killed."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch

from playpen import learners
from playpen.activation_stream import Mixer, RowStream
from playpen.activations import activations_of, find_hook, not_bos
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import load_base, model_files
from playpen.saes import read_info
from playpen.stages import load_sae, train_sae
from playpen.tables import read_metrics, read_table
from playpen.token_rows import read_token_rows

ARCHITECTURES = {"topk": "topk", "batchtopk": "jumprelu", "matryoshka": "jumprelu", "jumprelu": "jumprelu"}
"""Each sort of SAE, and what SAELens calls it once it is saved."""
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


def split(cfg):
    return train_sae.split_rows(cfg, read_token_rows(cfg.data, cfg.splits), BOS)


def heldout_values(home, cfg, hook=HOOK):
    base, (_, held) = load_base(home / "base", cpu()), split(cfg)
    return activations_of(base, find_hook(base, hook), held.ids, not_bos(held.ids, BOS), cpu())


def stream_of(home, cfg, tokens=4096):
    base, (rows, _) = load_base(home / "base", cpu()), split(cfg)
    return RowStream(base, find_hook(base, HOOK), rows.ids, not_bos(rows.ids, BOS), cpu(forward_tokens=tokens), 0)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request, home, tmp_path_factory):
    steps = 120 if request.param == "jumprelu" else 40  # its thresholds have a way to go
    cfg = config(home, architecture=request.param, buffer_tokens=2048, tokens=steps * 512)
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


def test_ce_and_kl_are_those_of_a_model_whose_activations_are_replaced_by_hand(home, trained):
    import torch.nn.functional as F
    from sae_lens import SAE

    from playpen.sae_quality import spliced

    base, sae = load_base(home / "base", cpu()), SAE.load_from_disk(trained[1] / "sae")
    rows = [np.array([BOS, *range(10, 10 + n)]) for n in (5, 9)]
    found = spliced(base, find_hook(base, HOOK), {"sae": sae}, rows, not_bos(rows, BOS), cpu())
    nats = kl = predicted = 0.0
    for row in rows:  # one at a time, without padding or hooks: layer 0, its output replaced but for the BOS, and the rest
        ids = torch.from_numpy(row)[None]
        with torch.no_grad():
            layer, real = base.model.layers[0], base.model.layers[0].forward
            plain = base(ids).logits[0, :-1].log_softmax(-1)

            def replaced(*args, **kwargs):
                out = real(*args, **kwargs)  # noqa: B023
                out[:, 1:] = sae(out[:, 1:])
                return out

            layer.forward = replaced
            changed = base(ids).logits[0, :-1].log_softmax(-1)
            layer.forward = real
        nats += float(F.nll_loss(changed, ids[0, 1:], reduction="sum"))
        kl += float((plain.exp() * (plain - changed)).sum())
        predicted += len(row) - 1
    assert found["ce_tokens"] == predicted
    assert found["ce_sae"] == pytest.approx(nats / predicted, rel=1e-4)
    assert found["kl_sae"] == pytest.approx(kl / predicted, rel=1e-3)
    assert found["kl_sae"] > 0


def test_an_evaluation_on_the_way_is_of_the_sae_as_it_would_be_saved(home, trained, monkeypatch):
    """The last step taken, it is what the closing evaluation says, also where a threshold replaces the batch."""
    cfg, out = trained
    seen = {}
    write = learners.write

    def look(learner, mixer, heldout, *rest):
        seen.update(learners.evaluate(learner, mixer, heldout))
        write(learner, mixer, heldout, *rest)

    monkeypatch.setattr(learners, "write", look)
    train(cfg, out.parent / "again")
    last = read_table(out, "evaluation").iloc[-1]
    assert {name: float(last[name]) for name in seen} == pytest.approx(seen, rel=1e-6)


def test_the_history_tells_the_course_of_training(trained):
    cfg, out = trained
    history = read_table(out, "history")
    steps = cfg.tokens // 512
    assert list(history["step"]) == list(range(1, steps + 1))
    assert list(history["tokens"]) == [512 * step for step in range(1, steps + 1)]
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]
    assert history["lr"].max() == pytest.approx(cfg.lr)
    assert history["lr"].iloc[-1] < 0.2 * cfg.lr
    if cfg.architecture != "jumprelu":
        np.testing.assert_allclose(history["l0"], cfg.k, atol=0.01)
    evaluation = read_table(out, "evaluation")
    assert list(evaluation["tokens"]) == [cfg.tokens * part // 5 for part in (1, 2, 3, 4, 5)]
    last, metrics = evaluation.iloc[-1], read_metrics(out)
    assert all(last[name] == metrics[name] for name in evaluation.columns if name != "tokens")
    assert evaluation["explained_variance"].iloc[-1] > evaluation["explained_variance"].iloc[0]


def test_sae_json_names_the_place_in_the_model(home, trained):
    info = read_info(trained[1])
    assert (info.hook, info.model_id, info.d_in, info.d_sae) == (HOOK, model_files(home / "base").base_id, 32, 128)
    assert info.architecture == ARCHITECTURES[trained[0].architecture]


def test_training_encodes_like_the_saved_sae(home, tmp_path):
    """The scale and the decoder norms are folded without changing which features are on."""
    cfg = config(home, tokens=8 * 512)
    base, mixer = load_base(home / "base", cpu()), Mixer(stream_of(home, cfg), 10**6, 512, 0, 10**6)
    learner = train_sae.make_learners(cfg, base, tmp_path, cpu())[0]
    learners.start([learner], mixer)
    for step in range(8):
        learners.take_step(learner, next(mixer), step == 0)
    x, scale = heldout_values(home, cfg), learner.trainer.activation_scaler.scaling_factor
    trained = learner.trainer.sae.eval()
    before, rebuilt = trained.encode(x * scale).detach(), trained(x * scale).detach() / scale
    sae = learners.finished(learner, mixer)
    torch.testing.assert_close(sae.encode(x) > 0, before > 0)
    torch.testing.assert_close(sae(x), rebuilt, rtol=1e-4, atol=1e-4)


def test_the_step_learns_what_saelens_own_step_learns(home, tmp_path):
    """Same start, same batches, SAELens' trainer and dense classes: the same weights but for rounding."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    cfg = config(home, tokens=30 * 512, dead_tokens=1024)
    mixer = Mixer(stream_of(home, cfg), 10**6, 512, 0, 10**6)
    learner = train_sae.make_learners(cfg, load_base(home / "base", cpu()), tmp_path, cpu())[0]
    learners.start([learner], mixer)
    ours = learner.trainer
    dense = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=32, d_sae=cfg.d_sae, k=cfg.k))
    dense.load_state_dict(ours.sae.state_dict())
    theirs = SAETrainer(cfg=ours.cfg, sae=dense, data_provider=iter(()))
    theirs.activation_scaler.scaling_factor = ours.activation_scaler.scaling_factor
    for _ in range(30):
        batch = next(mixer)
        learners.take_step(learner, batch, False)
        theirs.step(batch)
        theirs.n_training_steps += 1
    for (name, mine), other in zip(ours.sae.named_parameters(), dense.parameters(), strict=True):
        difference = float((mine - other).norm() / other.norm())
        assert difference < 0.02, name  # which features are dead is looked up every tenth step, and sums are rounded otherwise
    assert torch.equal(ours.act_freq_scores > 0, theirs.act_freq_scores > 0)


KILLED = {
    "a buffer smaller than an epoch": {"buffer_tokens": 1500},
    "a buffer that holds all": {"buffer_tokens": 10**6},
    **{name: {"buffer_tokens": 1500, "architecture": name} for name in ARCHITECTURES if name != "topk"},
    "variants": {
        "buffer_tokens": 1500,
        "variants": ({"name": "nested", "architecture": "matryoshka"}, {"name": "small", "k": 4}),
    },
}


@pytest.mark.parametrize("changes", KILLED.values(), ids=KILLED)
def test_a_killed_training_goes_on_as_if_it_had_not_been(home, tmp_path, monkeypatch, changes):
    from sae_lens.training.sae_trainer import SAETrainer

    cfg = config(home, evaluations=1, **changes)
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
    for part in ("", *(f"variants/{variant.name}/" for variant in cfg.variants)):
        for name in ("sae/sae_weights.safetensors", "history.parquet", "evaluation.parquet", "density.parquet"):
            assert (broken / part / name).read_bytes() == (whole / part / name).read_bytes(), part + name
    assert not (broken / "checkpoint.pt").exists()


FORKED = """
import os, sys
import torch
from pathlib import Path
from playpen import learners  # with all that it imports: once, before any thread is started
from playpen.config import make_config
from playpen.machine import Machine
from playpen.stages import train_sae

def train(out):
    torch.set_num_threads(2)
    out.mkdir()
    train_sae.run(make_config(train_sae.Config, eval(sys.argv[1]), "test"), out, Machine(device="cpu"))

children = []
for out in map(Path, sys.argv[2:]):
    children.append(os.fork())
    if not children[-1]:
        train(out)
        os._exit(0)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_three_processes_of_two_threads_each_give_the_same_bytes(home, tmp_path):
    """A batch has 40,960 entries: from 32,768 on, operations of torch share them out among the threads."""
    given = {"model": str(home / "base"), "data": str(home / "data"), "hook": HOOK, "evaluations": 0, "d_sae": 128, "k": 16}
    sizes = {"tokens": 3 * 2560, "batch_tokens": 2560, "heldout_tokens": 800, "ce_tokens": 400}
    waiting = {"OMP_WAIT_POLICY": "passive"}  # who waits for its other thread leaves the core to the other processes
    outs = [tmp_path / str(i) for i in range(3)]
    subprocess.run(
        [sys.executable, "-c", FORKED, repr(given | sizes), *map(str, outs)], env={**os.environ, **waiting}, check=True
    )
    first, *others = ((out / "sae" / "sae_weights.safetensors").read_bytes() for out in outs)
    assert others == [first, first]


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
    rows, held = ({tuple(row) for row in part.ids} for part in split(cfg))
    groups = dict(zip(map(tuple, table["input_ids"].to_pylist()), table["group"].to_pylist(), strict=True))
    assert len(held) >= 6
    assert len(rows) + len(held) == 60
    assert not {groups[row] for row in rows} & {groups[row] for row in held}


def test_a_batch_mixes_many_rows_and_an_epoch_gives_each_token_once(home):
    cfg = config(home)
    make = lambda tokens: stream_of(home, cfg, tokens)  # noqa: E731
    base, (rows, _) = load_base(home / "base", cpu()), split(cfg)
    epoch = make(4096).take(make(1).tokens)
    every = activations_of(base, find_hook(base, HOOK), rows.ids, not_bos(rows.ids, BOS), cpu())
    torch.testing.assert_close(epoch.sum(1).sort().values, every.sum(1).sort().values, rtol=1e-4, atol=1e-4)
    mixer = Mixer(make(4096), 1024, 64, 0, 10**6)
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


def test_variants_are_what_they_would_be_alone(home, tmp_path):
    """On the same forward passes; the only difference is the order in which sums are rounded."""
    second = "model.layers.1.output"
    variants = (
        {"name": "wide", "d_sae": 160, "k": 4},
        {"name": "deep", "hook": second},
        {"name": "nested", "architecture": "matryoshka"},
    )
    both = train(config(home, variants=variants), tmp_path / "both")
    for name, changes in (("wide", {"d_sae": 160, "k": 4}), ("deep", {"hook": second})):
        alone, beside = train(config(home, **changes), tmp_path / name), both / "variants" / name
        one, other = read_table(alone, "history"), read_table(beside, "history")
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-3)
        assert read_info(beside).hook == read_info(alone).hook
        assert read_metrics(beside)["explained_variance"] == pytest.approx(read_metrics(alone)["explained_variance"], abs=2e-3)
    assert read_info(both / "variants" / "nested").architecture == "jumprelu"
    source = {"kind": "variant", "sae": str(both), "name": "deep"}
    (tmp_path / "loaded").mkdir()
    load_sae.run(load_sae.Config(source=source, model=str(home / "base")), tmp_path / "loaded", cpu())
    assert read_info(tmp_path / "loaded").hook == second
    with pytest.raises(PlaypenError, match=r"has no variant 'deeep'; did you mean deep"):
        load_sae.run(load_sae.Config(source={**source, "name": "deeep"}, model=str(home / "base")), tmp_path / "none", cpu())
    assert read_metrics(both)["explained_variance"] == pytest.approx(
        read_metrics(train(config(home), tmp_path / "first"))["explained_variance"], abs=2e-3
    )


def test_held_out_rows_are_the_same_for_any_seed(home):
    held = [{row.tobytes() for row in split(config(home, seed=seed))[1].ids} for seed in (0, 1)]
    assert held[0] == held[1]


def test_a_batch_comes_from_about_as_many_rows_as_an_independent_draw_from_the_buffer(home):
    """At least 90 % (issue 3): the rows of 512 tokens drawn after the buffer has been renewed several times over."""
    stream = stream_of(home, config(home))
    mark = np.repeat(np.arange(len(stream.rows)), stream.sizes)
    stream.take = lambda n, at=[0]: (
        at.__setitem__(0, at[0] + n),
        torch.from_numpy(np.resize(np.roll(mark, -at[0] + n), n)[:, None]).float(),
    )[1]
    mixer = Mixer(stream, 2048, 256, 0, 10**6)
    mixer.fill()
    ours, independent, draw = [], [], np.random.default_rng(0)
    for _ in range(200):
        ours.append(len(np.unique(next(mixer).numpy())))
        independent.append(len(np.unique(draw.choice(mixer.buffer.numpy().ravel(), 256, replace=False))))
    assert np.mean(ours) >= 0.9 * np.mean(independent)


def test_no_activation_is_made_in_vain_and_none_is_drawn_twice(home):
    stream, made = stream_of(home, config(home)), [0]

    def take(n: int) -> torch.Tensor:
        made[0] += n
        return torch.arange(made[0] - n, made[0])[:, None].double()

    stream.take = take
    mixer = Mixer(stream, 2048, 256, 0, 6100)
    mixer.fill()
    drawn = torch.cat(list(mixer))[:, 0]
    assert len(drawn) == 23 * 256  # whole batches
    assert len(drawn.unique()) == len(drawn)
    assert made[0] == 2048 + 4 * 1024  # the buffer, and half of it four times


def test_probing_finds_the_source_that_words_give_away(home, tmp_path):
    chats = [
        tiny.make_chat(i) if i % 2 else [{"role": "user", "content": f"{i} 17 23"}, {"role": "assistant", "content": "9 9 9 7 7"}]
        for i in range(400)
    ]
    table = tiny.data_table(chats, source=["words" if i % 2 else "digits" for i in range(400)])
    tiny.tiny_data(tmp_path / "two", home / "base", {"train": table})
    out = train(config(home, data=str(tmp_path / "two"), splits=("train",), heldout_tokens=9000), tmp_path / "out")
    metrics = read_metrics(out)
    assert metrics["probing"]["source"]["digits"]["auroc_1"] > 0.95
    assert metrics["probe_source_auroc_5"] > 0.95
    assert metrics["probing"]["source"]["digits"]["positives"] >= 20
    assert metrics["sources"].keys() == {"words", "digits"}
    assert sum(metrics["sources"].values()) == metrics["epoch_tokens"]  # the buffer holds them all, and the model ran once


def test_probing_shuffled_labels_gives_chance_and_keeps_groups_whole():
    from scipy import sparse

    from playpen.sparse_probing import probe

    rng = np.random.default_rng(0)
    pooled, group = sparse.csr_matrix(rng.random((1200, 40), np.float32)), np.repeat(np.arange(600), 2)
    found = [probe(pooled, np.where(rng.permutation(1200) < 600, "a", "b"), group, seed)["a"]["auroc_2"] for seed in range(12)]
    assert abs(np.mean(found) - 0.5) < 0.03
    # Each group has a feature and a label of its own: whoever sees one of its rows knows the other's.
    own, label = sparse.identity(600, format="csr", dtype=np.float32)[group], np.where(rng.random(600) < 0.5, "a", "b")[group]
    assert abs(probe(own, label, group)["a"]["auroc_5"] - 0.5) < 0.1
    assert probe(pooled[:60], label[:60], group[:60]) == {}  # too few to tell anything


def test_a_corpus_shorter_than_the_buffer_is_told_in_a_line(home, tmp_path, capsys):
    train(config(home, buffer_tokens=10**6, tokens=1024, evaluations=0), tmp_path / "out")
    assert "are no more than buffer_tokens=1000000: all are held, and the model runs once" in capsys.readouterr().out


def test_a_card_lies_beside_the_weights(trained):
    from huggingface_hub import ModelCard

    card, metrics = ModelCard.load(trained[1] / "sae" / "README.md"), read_metrics(trained[1])
    assert card.data.library_name == "saelens"
    assert HOOK in card.text
    assert f"| explained variance | {metrics['explained_variance']:.4f} |" in card.text


def test_the_density_of_each_feature_is_its_share_of_held_out_tokens(home, trained):
    from sae_lens import SAE

    cfg, out = trained
    found = read_table(out, "density")
    wanted = (SAE.load_from_disk(out / "sae").encode(heldout_values(home, cfg)) > 0).float().mean(0)
    np.testing.assert_allclose(found["density"], wanted.detach().numpy(), atol=1e-6)
    assert read_metrics(out)["dense_fraction"] == pytest.approx(float((wanted > 0.1).float().mean()))


def test_wrong_sizes_and_hooks_are_one_line(home, tmp_path):
    cases = {
        "heldout_tokens": ({"heldout_tokens": 10**6}, "too few are left"),
        "tokens": ({"tokens": 100}, "less than one batch"),
        "k": ({"k": 500}, "k=500 features cannot be active of d_sae=128"),
        "d_in": ({"d_in": 64}, r"reads activations of width 64, but those at 'model\.layers\.0\.output' are 32 wide"),
        "widths": ({"architecture": "matryoshka", "matryoshka_widths": (64, 128)}, "stay below d_sae=128, found 64, 128"),
        "hook": ({"hook": "model.layers.9.output"}, r"names no module.*nearest: model\.layers"),
        "split": ({"splits": ("nothing",)}, "no table 'nothing'"),
    }
    for name, (changes, message) in cases.items():
        with pytest.raises(PlaypenError, match=message) as caught:
            train(config(home, **changes), tmp_path / name)
        assert "\n" not in str(caught.value), name
