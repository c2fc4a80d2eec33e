"""The dashboard says what a dense computation over single rows says; it survives being killed, and refuses what does not fit."""

import gzip
import json
import os
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tiny
import torch
from sklearn.metrics import roc_auc_score

from playpen import artifact
from playpen.config import PlaypenError, make_config
from playpen.dashboard_data import contrasts, entries, shards
from playpen.dashboard_data.contrasts import FEW_ACTIVE, coarse
from playpen.dashboard_data.scripts import read_packed
from playpen.machine import Machine
from playpen.models import load_base, model_files
from playpen.saes import open_sae, write_sae
from playpen.stages import features
from playpen.tables import read_metrics, write_json, write_table
from playpen.token_rows import read_token_rows

BOS, D_SAE = tiny.SPECIAL.index("<bos>"), 96
HOOK = "model.layers.0.output"
KINDS = ("jumprelu", "topk")
CHECKED = (3, 5, 7, 8, *range(0, D_SAE, 6))
"""Features that are compared one by one where that takes long."""
SMALL = {"tokens": None, "top": 5, "group": 2, "random": 4, "near": 3, "window": 6, "shard_features": 40}


def cpu(tokens=4096):
    return Machine(device="cpu", forward_tokens=tokens)


def make_sae(kind, d_in=32):
    """Return a random SAE of which a few features are on, one is always on and one never; 7 and 8 fire nearly together."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig

    draw = torch.Generator().manual_seed(0)
    shape = {"d_in": d_in, "d_sae": D_SAE}
    sae = JumpReLUSAE(JumpReLUSAEConfig(**shape)) if kind == "jumprelu" else TopKSAE(TopKSAEConfig(**shape, k=6))
    sae.W_enc.data = torch.randn((d_in, D_SAE), generator=draw)
    sae.W_enc.data[:, 8] = sae.W_enc.data[:, 7] + 0.1 * torch.randn(d_in, generator=draw)
    sae.W_dec.data = torch.randn((D_SAE, d_in), generator=draw)
    sae.b_enc.data[3], sae.b_enc.data[5] = 1000, -1000
    if kind == "jumprelu":
        sae.threshold.data.fill_(8.0)
    return sae


def write_random_sae(path, base, kind="topk", model_id="own", sae=None, hook=HOOK):
    found = model_files(base).base_id if model_id == "own" else model_id
    made = sae or make_sae(kind)
    return tiny.write_artifact(path, "load-sae", lambda out: write_sae(out, made, hook, found) and None)


def write_corpus(path, base):
    """Write a mixed corpus of two sides in blocks of 48 tokens; long documents go on in the next block, behind a BOS again."""
    tokenizer, blocks, starts, numbers, documents = tiny.tokenizer(), [[]], [[]], [[]], []
    for number in range(40):
        prompt = number % 2 == 0
        messages = tiny.make_chat(number // 4 if number % 8 == 6 else number)  # some documents come twice
        text = " ".join(message["content"] for message in messages)
        ids = tokenizer.encode(text if prompt else text.upper(), add_special_tokens=False)
        name = {"row_id": f"{hash_of(text)}{prompt:d}", "copy": 0, "num_tokens": len(ids), "document": number}
        kind = {"source": ("asked", "told")[number // 2 % 2] if prompt else "loud", "side": ("control", "prompts")[prompt]}
        name["group"] = name["row_id"]
        documents.append({**name, **kind, "category": ("refusal", "none")[number // 4 % 2] if prompt else ""})
        while ids:
            if len(blocks[-1]) > 45:
                blocks, starts, numbers = [*blocks, []], [*starts, []], [*numbers, []]
            room = 47 - len(blocks[-1])
            starts[-1].append(len(blocks[-1]))
            numbers[-1].append(number)
            blocks[-1] += [BOS, *ids[:room]]
            ids = ids[room:]

    def fill(out):
        columns = {"input_ids": (blocks, pa.int32()), "starts": (starts, pa.int32()), "documents": (numbers, pa.int64())}
        table = pa.table({name: pa.array(values, pa.list_(kind)) for name, (values, kind) in columns.items()})
        write_table(out / "blocks" / "shard-00000.parquet", table.slice(0, 9))
        write_table(out / "blocks" / "shard-00001.parquet", table.slice(9))
        write_table(out / "documents.parquet", pd.DataFrame(documents).astype({"copy": "int32", "num_tokens": "int32"}))
        mark = artifact.digest(str(model_files(base).tokenizer / "tokenizer.json"))
        write_json(out / "metrics.json", {"tokenizer": mark})

    return tiny.write_artifact(path, "mix-corpus", fill)


def hash_of(text):
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:15]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("features")
    base = tiny.tiny_base(path / "base")
    for kind in KINDS:
        write_random_sae(path / kind, base, kind)
    write_corpus(path / "corpus", base)
    tiny.tiny_data(path / "data", base, {"pool": 12, "train": 3})
    return path


def config(home, **changes):
    names = {"sae": str(home / "topk"), "model": str(home / "base"), "data": str(home / "corpus")}
    return make_config(features.Config, {**names, **SMALL, **changes}, "features")


def run(cfg, out, machine=None):
    out.mkdir(parents=True, exist_ok=True)
    features.run(cfg, out, machine or cpu())
    return out


class Truth:
    """Everything of a dashboard's corpus, dense, by forward passes of single rows."""

    def __init__(self, home, sae_name, data="corpus"):
        rows = read_token_rows(home / data, ("train", "pool"))
        model, sae = load_base(home / "base", cpu()), open_sae(home / sae_name, cpu())
        self.model, self.sae = model, sae
        strengths, before = [], []
        for ids in rows.ids:
            with torch.no_grad():
                one = torch.from_numpy(np.array(ids))[None].long()
                hidden = model(input_ids=one, output_hidden_states=True).hidden_states[1][0]
                strengths.append(sae.encode(hidden).numpy()[1:])
                before.append((sae.process_sae_in(hidden) @ sae.W_enc + sae.b_enc).numpy()[1:])
        self.row = np.repeat(np.arange(len(rows)), [len(ids) - 1 for ids in rows.ids])
        self.ids = np.concatenate([ids[1:] for ids in rows.ids])
        self.position = np.concatenate([np.arange(1, len(ids)) for ids in rows.ids])
        self.next = np.concatenate([np.append(ids[2:], -1) for ids in rows.ids])
        self.strength, self.before = np.concatenate(strengths), np.concatenate(before)
        self.rows = rows
        self.document = rows.document[self.row]
        self.side, self.source, self.category = (c[self.row] for c in (rows.side, rows.source, rows.category))
        lens = sae.W_dec.detach() * (1 + model.model.norm.weight) @ model.get_output_embeddings().weight.T
        self.lens = (lens - lens.mean(1, keepdim=True)).numpy()

    def peaks(self, feature):
        """Return the maximum in each document: a table with its side, source and category."""
        columns = {"document": self.document, "v": self.strength[:, feature]}
        columns |= {"side": self.side, "source": self.source, "category": self.category}
        found = (
            pd.DataFrame(columns).groupby("document").agg({"v": "max", "side": "first", "source": "first", "category": "first"})
        )
        return found.assign(coarse=coarse(found["v"].to_numpy(np.float32)))


class Made:
    """A dashboard read back."""

    def __init__(self, out):
        self.out = out
        self.meta = json.loads((out / "data/meta.js").read_text().removeprefix("playpen.meta(").removesuffix(");\n"))
        self.list = pd.DataFrame(read_packed(out / "data/list.js")).set_index("id")
        self.search = read_packed(out / "data/search.js")
        shards = [read_packed(out / f"data/shard-{i:05d}.js") for i in range(self.meta["num_shards"])]
        self.strings = [shard["strings"] for shard in shards]
        self.shard_of = {f["id"]: i for i, shard in enumerate(shards) for f in shard["features"]}
        self.features = {f["id"]: f for shard in shards for f in shard["features"]}

    def text(self, feature, place):
        return self.strings[self.shard_of[feature]][place]


@pytest.fixture(scope="module", params=KINDS)
def pair(request, home, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrasts, "FEW", 5)  # the corpus has ten prompts of a category
        out = run(config(home, sae=str(home / request.param)), tmp_path_factory.mktemp(request.param) / "out")
    return Made(out), Truth(home, request.param)


def test_the_list_equals_dense_figures(pair):
    made, truth = pair
    documents = len(set(truth.document))
    for feature in CHECKED:
        row, s = made.list.loc[feature], truth.strength[:, feature]
        on = s > 0
        assert row["density"] == pytest.approx(on.mean(), rel=1e-4)
        assert row["documents"] == pytest.approx(len(set(truth.document[on])) / documents, rel=1e-4)
        expected = [on[truth.side == side].mean() for side in ("prompts", "control")]
        assert [row["prompts"], row["control"]] == pytest.approx(expected, rel=1e-4)
        if not on.any():
            assert row[["max", "mean", "std", "token_share", "log_odds", "auroc", "lift", "x"]].isna().all()
            continue
        peaks = truth.peaks(feature)
        assert row["auroc"] == pytest.approx(roc_auc_score(peaks["side"] == "prompts", peaks["coarse"]), rel=1e-4)
        assert [row["max"], row["mean"], row["std"]] == pytest.approx([s.max(), s[on].mean(), s[on].std()], rel=1e-3)
        assert row["token_share"] == pytest.approx(np.bincount(truth.ids[on]).max() / on.sum(), rel=1e-4)
        counts = [(on & (truth.side == side)).sum() for side in ("prompts", "control")]
        totals = [(truth.side == side).sum() for side in ("prompts", "control")]
        odds = [np.log((a + 0.5) / (n - a + 0.5)) for a, n in zip(counts, totals, strict=True)]
        assert row["log_odds"] == pytest.approx(odds[0] - odds[1], rel=1e-4, abs=1e-5)


def test_flags_say_dead_dense_and_single_token(pair):
    made, truth = pair
    for feature in range(D_SAE):
        on = truth.strength[:, feature] > 0
        share = np.bincount(truth.ids[on], minlength=1).max() / max(1, on.sum())
        expected = 1 * (not on.any()) + 2 * (on.mean() > 0.1) + 4 * (on.sum() >= 5 and share >= 0.9)
        assert made.list.loc[feature, "flags"] == expected
    assert made.list.loc[5, "flags"] == 1
    assert made.list.loc[3, "flags"] == 2
    assert made.search["id"] == [i for i in range(D_SAE) if not made.list.loc[i, "flags"] & 1]


def test_the_best_category_and_source_are_those_of_the_definition(pair):
    made, truth = pair
    names, sources = ([each["name"] for each in made.meta[key]] for key in ("categories", "sources"))
    assert (names, sources) == (["none", "refusal"], ["asked", "loud", "told"])
    for feature in CHECKED:
        row, peaks = made.list.loc[feature], truth.peaks(feature)
        prompts = peaks[peaks["side"] == "prompts"]
        aurocs = [roc_auc_score(prompts["category"] == name, prompts["coarse"]) for name in names]
        table = [auroc for *_, auroc in made.features[feature]["categories"]]
        assert table == (pytest.approx(aurocs, abs=2e-4) if prompts["v"].any() else [None, None])
        if not row["flags"] & 1:
            assert row["category_auroc"] == pytest.approx(max(aurocs), rel=1e-4)
            assert aurocs[int(row["category"])] == pytest.approx(max(aurocs))
            density = [(truth.strength[truth.source == name, feature] > 0).mean() for name in sources]
            check_source(row, peaks, dict(zip(sources, density, strict=True)), sources)
            assert [d for _, d, *_ in made.features[feature]["sources"]] == pytest.approx(density, rel=1e-3)


def check_source(row, peaks, density, sources):
    """Find the source of the highest density among those in which the feature is active in enough documents."""
    active = {name: int((peaks.loc[peaks["source"] == name, "v"] > 0).sum()) for name in sources}
    enough = [name for name in sources if active[name] >= FEW_ACTIVE]
    if not enough:
        assert row[["lift", "source"]].isna().all()
        return
    best = max(density[name] for name in enough)
    assert row["lift"] == pytest.approx(best / row["density"], rel=1e-3)
    assert density[sources[int(row["source"])]] == pytest.approx(best)


def test_the_auroc_of_length_alone_stands_beside_the_groups(pair):
    made, truth = pair
    documents = truth.peaks(0).assign(length=np.unique(truth.document, return_counts=True)[1])
    assert made.meta["length_auroc"] == pytest.approx(
        roc_auc_score(documents["side"] == "prompts", documents["length"]), abs=1e-4
    )
    prompts = documents[documents["side"] == "prompts"]
    for key, column, among in (("sources", "source", documents), ("categories", "category", prompts)):
        for each in made.meta[key]:
            expected = roc_auc_score(among[column] == each["name"], among["length"])
            assert each["length_auroc"] == pytest.approx(expected, abs=1e-4), each["name"]


def test_examples_are_the_strongest_and_show_strength_and_effect(pair):
    made, truth = pair
    for feature in (0, 3, 7, 20, 41, 95):
        peaks = sorted(truth.peaks(feature)["v"], reverse=True)
        top = made.features[feature]["top"]
        assert [e["v"] for e in top] == pytest.approx([v for v in peaks if v > 0][:5], rel=1e-3)
        assert len({e["d"] for e in top}) == len(top)
        for example in [*top, *made.features[feature]["random"], *made.features[feature]["near"]]:
            check_example(made, truth, feature, example)


def check_example(made, truth, feature, example):
    """Find the row that an example is of, and compare the window token by token."""
    tokenizer = tiny.tokenizer()
    shown = [made.text(feature, place) for place in example["t"]]
    for number in np.flatnonzero(truth.rows.document == example["d"]):
        ids = truth.rows.ids[number]
        part = ids[example["p"] : example["p"] + len(shown)]
        s = np.append(0, truth.strength[truth.row == number, feature])[example["p"] :][: len(shown)]
        if len(ids) == example["n"] and same_window(example, s) and same_text(shown, tokenizer.batch_decode([[i] for i in part])):
            break
    else:
        pytest.fail(f"no row of {example['d']} looks like {example}")
    assert made.meta["sources"][example["s"]]["name"] == truth.rows.source[number]
    category = truth.rows.category[number]
    assert (made.meta["categories"][example["c"]]["name"] if example["c"] >= 0 else "") == category
    low, high = max(0, example["p"] + example["at"] - 6), min(len(ids), example["p"] + example["at"] + 7)
    assert (example["p"], example["p"] + len(shown)) == (low, high)
    following = np.append(ids[1:], -1)[low:high]
    effect = [x * truth.lens[feature, i] if i >= 0 else None for x, i in zip(s, following, strict=True)]
    assert [e is None for e in example["e"]] == [e is None for e in effect]
    pairs = [(a, b) for a, b in zip(example["e"], effect, strict=True) if b is not None]
    np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=2e-2, atol=2e-2 * max(1, np.abs(pairs).max()))


def same_text(shown, texts):
    return all(a == b or "\N{REPLACEMENT CHARACTER}" in b for a, b in zip(shown, texts, strict=True))


def same_window(example, strength):
    return len(strength) == len(example["a"]) and np.allclose(example["a"], strength, rtol=1e-2, atol=1e-2)


def test_quantile_groups_are_true_quantiles_and_intervals_equal_widths(pair):
    made, truth = pair
    for feature in range(D_SAE):
        s = np.sort(truth.strength[:, feature])[::-1]
        s = s[s > 0]
        groups, found = np.array_split(s, 10), made.features[feature]
        assert sorted(g["count"] for g in found["quantiles"]) == sorted(len(g) for g in groups if len(g))
        assert sum(g["count"] for g in found["intervals"]) == len(s)
        at = 0
        for group in found["quantiles"]:
            part = s[at : at + group["count"]]
            assert [group["high"], group["low"]] == pytest.approx([part[0], part[-1]], rel=1e-3)
            assert all(group["low"] * 0.99 <= e["v"] <= group["high"] * 1.01 for e in group["examples"])
            at += group["count"]


def test_near_misses_are_the_highest_pre_activations_that_are_off(pair):
    made, truth = pair
    for feature in range(D_SAE):
        off = pd.Series(np.where(truth.strength[:, feature] > 0, -np.inf, truth.before[:, feature]))
        expected = off.groupby(truth.document).max().sort_values(ascending=False).head(3)
        found = made.features[feature]["near"]
        assert [e["v"] for e in found] == pytest.approx(expected[np.isfinite(expected)].tolist(), rel=1e-3, abs=1e-3)
        assert all(e["a"][e["at"]] == 0 for e in found)
    assert len(made.features[5]["near"]) == 3
    assert made.features[3]["near"] == []


def test_the_lens_lists_what_a_direction_promotes(pair):
    made, truth = pair
    vocabulary = tiny.tokenizer().batch_decode([[i] for i in range(320)])
    for feature in range(D_SAE):
        lens, found = truth.lens[feature], made.features[feature]["logits"]
        assert [v for _, v in found["up"]] == pytest.approx(np.sort(lens)[::-1][:10], rel=1e-2)
        assert [v for _, v in found["down"]] == pytest.approx(np.sort(lens)[:10], rel=1e-2)
        best, text = vocabulary[int(lens.argmax())], made.text(feature, found["up"][0][0])
        assert text == best or "\N{REPLACEMENT CHARACTER}" in best
        assert made.list.loc[feature, "up"] == [made.text(feature, place) for place, _ in found["up"][:5]]
        assert sum(found["histogram"]["counts"]) == 320
    assert made.meta["lens"] is None


def test_correlations_and_neighbours_reach_over_the_whole_dictionary(pair):
    made, truth = pair
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = np.corrcoef(truth.strength.T.astype(np.float64))
    unit = torch.nn.functional.normalize(truth.sae.W_dec.detach(), dim=1)
    cosine = (unit @ unit.T).numpy()
    for feature in range(D_SAE):
        others = [i for i in range(D_SAE) if i != feature]
        best = sorted((p for p in pearson[feature, others] if p > 0), reverse=True)[:10]
        found = made.features[feature]["correlated"]
        assert [p for _, p in found] == pytest.approx(best, abs=1e-3)
        assert [pearson[feature, i] for i, _ in found] == pytest.approx(best, abs=1e-3)
        near = made.features[feature]["neighbours"]
        assert [c for _, c in near] == pytest.approx(sorted(cosine[feature, others], reverse=True)[:10], abs=1e-3)
    assert made.features[7]["correlated"][0][0] == 8


def test_histograms_positions_and_tokens_count_every_active_token(pair):
    made, truth = pair
    for feature in range(D_SAE):
        found, s = made.features[feature], truth.strength[:, feature]
        on = s > 0
        assert sum(found["histogram"]["counts"]) == on.sum()
        edges = found["positions"]["edges"]
        for low, high, density in zip(edges[:-1], edges[1:], found["positions"]["density"], strict=True):
            inside = (truth.position >= low) & (truth.position < high)
            assert density == pytest.approx(on[inside].mean(), rel=1e-3)
        counts = sorted(np.bincount(truth.ids[on], minlength=1).tolist(), reverse=True)[:20]
        assert [active for _, active, *_ in found["tokens"]] == [count for count in counts if count]
        nexts = sorted(np.bincount(truth.next[on & (truth.next >= 0)], minlength=1).tolist(), reverse=True)[:20]
        assert [count for _, count in found["next"]] == [count for count in nexts if count]


def test_the_map_has_a_place_for_every_feature_that_is_alive(pair):
    made, _ = pair
    places = made.list[["x", "y"]]
    assert places.isna().all(axis=1).tolist() == (made.list["flags"] % 2 == 1).tolist()
    assert places.min().min() == 0
    assert places.max().max() == 1


def test_the_table_is_the_list_and_the_search_text_is_that_of_the_strongest_examples(pair):
    made, _ = pair
    table = pd.read_parquet(made.out / "features.parquet").set_index("id")
    numbers = [name for name in made.list.columns if name not in ("tokens", "up")]
    pd.testing.assert_frame_equal(table[numbers].astype(float), made.list[numbers].astype(float))
    assert table["tokens"].map(list).tolist() == made.list["tokens"].tolist()
    for feature, text in zip(made.search["id"], made.search["text"], strict=True):
        example = made.features[feature]["top"][0]
        shown = "".join(made.text(feature, i) for i in example["t"][max(0, example["at"] - 6) : example["at"] + 7])
        assert shown.lower() in text or not shown.isascii()


def test_meta_page_and_metrics_say_what_was_seen(pair, home):
    made, truth = pair
    assert made.meta["corpus"] == {"tokens": len(truth.ids), "rows": len(truth.rows), "documents": len(set(truth.document))}
    assert (made.meta["format"], made.meta["num_features"], made.meta["num_shards"]) == (1, D_SAE, 3)
    assert made.meta["sae"]["hook"] == HOOK
    assert made.meta["model"] == "base"
    assert made.meta["neuronpedia"] is None
    assert set(made.list.columns) >= {column["key"] for column in made.meta["columns"]} - {"id"}
    metrics = read_metrics(made.out)
    assert metrics["tokens"] == len(truth.ids)
    assert metrics["dead_fraction"] == pytest.approx((truth.strength == 0).all(0).mean())
    assert metrics["features_per_second"] == pytest.approx(D_SAE / metrics["seconds"], rel=0.2)
    assert metrics["peak_rss"] > 10**8
    assert "<title>" in (made.out / "index.html").read_text()
    served = json.loads((made.out / "serve.json").read_text())
    assert (made.out / served["model"]).resolve() == (home / "base").resolve()
    assert not (made.out / "work").exists()


EXPORTED = {"exports": ("json", "neuronpedia"), "neuronpedia": "gemma-3-270m/12-gemmascope-2-res-16k", "features": 60}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(entries, "CHUNK_TOKENS", 200)


@pytest.fixture(scope="module")
def exported(home, tmp_path_factory):
    """Return a dashboard in many chunks, with its exports, whose run was never killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "CHUNK_TOKENS", 200)
        return run(config(home, **EXPORTED), tmp_path_factory.mktemp("exported") / "out")


def same(left, right):
    """Compare two dashboards byte by byte, but for the times that they took."""
    names = {str(f.relative_to(left)) for f in left.rglob("*") if f.is_file()}
    assert names == {str(f.relative_to(right)) for f in right.rglob("*") if f.is_file()}
    for name in names - {"metrics.json"}:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("where", "at"), [("encode_chunk", 3), ("write_packed", 0), ("write_packed", 1), ("write_list", 0)])
def test_a_killed_run_ends_like_one_that_was_not(home, exported, tmp_path, monkeypatch, where, at):
    from playpen.dashboard_data import listing

    module = {"encode_chunk": entries, "write_packed": shards, "write_list": listing}[where]
    real, calls = getattr(module, where), []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) > at:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, where, dying)
        with pytest.raises(KeyboardInterrupt):
            run(config(home, **EXPORTED), tmp_path / "out")
    assert not (tmp_path / "out/metrics.json").exists()
    chunks, scripts = (len(list((tmp_path / "out").rglob(name))) for name in ("entries-*.bin", "shard-*.js"))
    assert (chunks, scripts) == {"encode_chunk": (3, 0), "write_packed": (chunks, at), "write_list": (chunks, 2)}[where]
    assert chunks >= 3
    run(config(home, **EXPORTED), tmp_path / "out")
    same(exported, tmp_path / "out")


@pytest.mark.usefixtures("small_chunks")
def test_what_is_whole_is_not_made_again(home, exported, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(features, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config(home, **EXPORTED), tmp_path / "out")
    monkeypatch.setattr(entries, "encode_chunk", lambda *_: pytest.fail("a whole chunk was encoded again"))
    monkeypatch.setattr(shards.Maker, "make", lambda *_: pytest.fail("a whole shard was made again"))
    run(config(home, **EXPORTED), tmp_path / "out")
    same(exported, tmp_path / "out")
    (tmp_path / "out/work").mkdir()  # killed while it cleared up
    run(config(home, **EXPORTED), tmp_path / "out")
    same(exported, tmp_path / "out")


def close(left, right, where=""):
    """Compare plain data, numbers but for the last digit that is shown."""
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            close(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list):
        assert len(left) == len(right), where
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            close(a, b, f"{where}[{i}]")
    elif isinstance(left, float):
        assert left == pytest.approx(right, rel=2e-3, abs=2e-3), where
    else:
        assert left == right, where


def test_chunks_shards_and_batches_change_nothing(home, exported, tmp_path):
    many, one = Made(exported), Made(run(config(home, features=60, shard_features=7), tmp_path / "one", cpu(tokens=64)))
    assert (many.meta["num_shards"], one.meta["num_shards"]) == (2, 9)
    for feature in range(60):
        a, b = one.features[feature], many.features[feature]
        # Where strengths differ in the last bit, the order of equal examples may: compare what does not depend on it.
        for name in ("histogram", "positions", "sources", "categories", "neighbours"):
            close(a[name], b[name], f"{feature}.{name}")
        for name in ("top", "near"):
            close([e["v"] for e in a[name]], [e["v"] for e in b[name]], f"{feature}.{name}")
        close([p for _, p in a["correlated"]], [p for _, p in b["correlated"]])


@pytest.mark.usefixtures("small_chunks")
def test_some_features_are_shown_as_in_a_dashboard_of_all(home, exported, tmp_path):
    every = Made(exported)
    some = Made(run(config(home, features=(41, 3, 50), shard_features=2), tmp_path / "some"))
    assert list(some.list.index) == [3, 41, 50]
    assert some.meta["num_features"] == 3
    for feature in (3, 41, 50):
        a, b = some.features[feature], every.features[feature]
        for name in ("histogram", "correlated", "neighbours", "sources"):
            assert a[name] == b[name]
        assert [e["v"] for e in a["near"]] == [e["v"] for e in b["near"]]
        assert [some.text(feature, i) for i in a["top"][0]["t"]] == [every.text(feature, i) for i in b["top"][0]["t"]]
    assert list(Made(run(config(home, features=2), tmp_path / "two")).list.index) == [0, 1]


def test_chats_have_no_sides_and_their_sources_are_shown(home, tmp_path):
    made = Made(run(config(home, data=str(home / "data"), features=9), tmp_path / "out"))
    assert [each["name"] for each in made.meta["sources"]] == ["even", "odd"]
    assert {each["side"] for each in made.meta["sources"]} == {""}
    assert made.meta["categories"] == []
    assert made.meta["length_auroc"] is None
    for name in ("prompts", "control", "log_odds", "auroc", "category", "category_auroc"):
        assert made.list[name].isna().all()
    assert "auroc" not in {column["key"] for column in made.meta["columns"]}
    assert made.meta["corpus"]["rows"] == 15
    assert (
        Made(run(config(home, data=str(home / "data"), splits=("train",), features=1), tmp_path / "train")).meta["corpus"]["rows"]
        == 3
    )


def test_a_token_budget_takes_whole_rows(home, tmp_path):
    made = Made(run(config(home, tokens=300, features=4), tmp_path / "out"))
    assert 300 <= made.meta["corpus"]["tokens"] < 350


def test_a_place_off_the_stream_has_no_lens_and_the_page_is_told_why(home, tmp_path):
    from sae_lens import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=64, d_sae=D_SAE, k=6))
    write_random_sae(tmp_path / "wide", home / "base", sae=sae, hook="model.layers.0.mlp.down_proj.input")
    made = Made(run(config(home, sae=str(tmp_path / "wide"), features=4), tmp_path / "out"))
    assert made.meta["lens"].startswith("the decoder writes activations 64 wide")
    assert made.features[0]["logits"] is None
    assert {e["e"] for f in made.features.values() for e in f["top"]} == {None}


@pytest.mark.usefixtures("small_chunks")
def test_a_map_drawn_in_a_process_of_its_own_is_the_same_and_its_end_is_noticed(home, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAPPED_AT_ONCE", 1)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "draw_map", os.abort)  # takes no arguments, so the process fails
        with pytest.raises(PlaypenError, match="drawing the map ended with status 1"):
            run(config(home, **EXPORTED), tmp_path / "out")
    run(config(home, **EXPORTED), tmp_path / "out")
    same(exported, tmp_path / "out")


def test_the_json_export_has_the_texts_in_place_of_their_numbers(exported):
    made = Made(exported)
    lines = [json.loads(line) for line in gzip.decompress((exported / "features.jsonl.gz").read_bytes()).splitlines()]
    assert [line["id"] for line in lines] == list(range(60))
    for line in lines:
        feature, text = made.features[line["id"]], partial(made.text, line["id"])
        shown = [[text(i) for i in example["t"]] for example in (*feature["top"], *feature["near"])]
        assert [example["t"] for example in (*line["top"], *line["near"])] == shown
        assert line["tokens"] == [[text(i), *rest] for i, *rest in feature["tokens"]]
        assert line["logits"]["down"] == [[text(i), value] for i, value in feature["logits"]["down"]]
        assert all(isinstance(t, str) for group in line["intervals"] for e in group["examples"] for t in e["t"])
        assert {name: line[name] for name in ("histogram", "sources")} == {n: feature[n] for n in ("histogram", "sources")}


NEURONPEDIA = (
    *("feature_index", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1"),
    *("correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson"),
    *("correlated_features_indices", "correlated_features_l1", "correlated_features_pearson"),
    *("neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero"),
    *("freq_hist_data_bar_values", "freq_hist_data_bar_heights", "logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
    *("n_prompts_total", "n_tokens_in_prompt", "dataset", "decoder_weights_dist", "activations", "vector"),
)
"""The fields of a feature that SAEDashboard 0.8.0 writes."""


def test_the_neuronpedia_export_has_the_fields_of_saedashboard(home, exported):
    made, truth = Made(exported), Truth(home, "topk")
    assert made.meta["neuronpedia"] == "https://www.neuronpedia.org/gemma-3-270m/12-gemmascope-2-res-16k/{id}"
    batches = [json.loads((exported / f"neuronpedia/batch-{i}.json").read_text()) for i in range(2)]
    head = {"model_id": "gemma-3-270m", "layer": 12, "sae_set": "gemmascope-2-res-16k", "sae_id_suffix": None}
    assert [{key: value for key, value in batch.items() if key != "features"} for batch in batches] == [head] * 2
    found = [feature for batch in batches for feature in batch["features"]]
    assert [feature["feature_index"] for feature in found] == list(range(60))
    for feature in found:
        assert tuple(sorted(feature)) == tuple(sorted(NEURONPEDIA))
        s = truth.strength[:, feature["feature_index"]]
        assert feature["frac_nonzero"] == pytest.approx((s > 0).mean())
        assert sum(feature["freq_hist_data_bar_heights"]) == (s > 0).sum()
        mine = made.features[feature["feature_index"]]
        tops = [a for a in feature["activations"] if a["bin_min"] == -1]
        assert [max(a["values"]) for a in tops] == pytest.approx([e["v"] for e in mine["top"]], rel=1e-2)
        assert all(a["values"][a["qualifying_token_index"]] == max(a["values"]) for a in tops)
        direction = truth.sae.W_dec[feature["feature_index"]].detach().numpy()
        assert feature["neuron_alignment_indices"] == np.argsort(-direction)[:3].tolist()
    assert found[7]["correlated_features_indices"][0] == 8
    unit = truth.strength[:, [7, 8]] / np.linalg.norm(truth.strength[:, [7, 8]], axis=0)
    assert found[7]["correlated_features_l1"][0] == pytest.approx(unit[:, 0] @ unit[:, 1], abs=2e-3)


def test_names_for_neuronpedia_come_from_the_artifacts_when_none_are_given(home, tmp_path):
    out = run(config(home, exports=("neuronpedia",), features=3), tmp_path / "out")
    batch = json.loads((out / "neuronpedia/batch-0.json").read_text())
    assert (batch["model_id"], batch["layer"], batch["sae_set"]) == ("base", 0, "topk")


def spoil(artifact_path, target, file, change):
    """Copy an artifact with one file changed."""
    shutil.copytree(artifact_path, target)
    change(target / file)
    return str(target)


def nan_sae(home, tmp_path):
    sae = make_sae("topk")
    sae.W_dec.data[3, 4] = torch.nan
    return str(write_random_sae(tmp_path / "nan", home / "base", sae=sae))


def nan_model(home, tmp_path):
    """Write a base whose first layer gives NaN, and a SAE that fits any base."""

    def fill(out):
        model = tiny.make_model()
        model.model.layers[0].mlp.down_proj.weight.data[0, 0] = torch.nan
        model.save_pretrained(out / "base")
        tiny.tokenizer().save_pretrained(out / "tokenizer")
        from playpen.models import write_model_files

        write_model_files(out, out / "base", out / "tokenizer")

    return str(tiny.write_artifact(tmp_path / "nan_base", "load-model", fill))


WEIGHTS = "sae/sae_weights.safetensors"
CASES = {
    "truncated": (
        lambda h, t: {"sae": spoil(h / "topk", t / "cut", WEIGHTS, lambda f: f.write_bytes(f.read_bytes()[:999]))},
        r"cut: the SAE in it cannot be opened \(SafetensorError.*make it again",
    ),
    "missing": (
        lambda h, t: {"sae": spoil(h / "topk", t / "gone", WEIGHTS, lambda f: f.unlink())},
        "gone: the SAE in it cannot be opened",
    ),
    "another's": (
        lambda h, t: {"sae": spoil(h / "topk", t / "odd", WEIGHTS, lambda f: shutil.copy(h / "jumprelu" / WEIGHTS, f))},
        "odd: the SAE in it cannot be opened",
    ),
    "no json": (
        lambda h, t: {"sae": spoil(h / "topk", t / "json", "sae/cfg.json", lambda f: f.write_text("{"))},
        "json: the SAE in it cannot be opened",
    ),
    "NaN weights": (lambda h, t: {"sae": nan_sae(h, t)}, "nan: W_dec holds infinite or NaN numbers"),
    "NaN activations": (
        lambda h, t: {"model": nan_model(h, t), "sae": str(write_random_sae(t / "any", h / "base", model_id=None))},
        r"hook 'model\.layers\.0\.output': \d+ tokens of a batch have infinite or NaN activations",
    ),
    "other base": (
        lambda h, t: {"sae": str(write_random_sae(t / "strange", h / "base", model_id="0123abcd"))},
        "was made for base 0123abcd",
    ),
    "no sae": (lambda h, t: {"sae": str(h / "base")}, "holds no SAE"),
    "no data": (lambda h, t: {"data": str(h / "base")}, "was tokenised with another tokenizer"),
    "split": (lambda h, t: {"data": str(h / "data"), "splits": ("poll",)}, "no table 'poll'"),
    "name": (lambda h, t: {"neuronpedia": "gemma-3-270m"}, "field 'neuronpedia': String should match pattern"),
    "feature": (lambda h, t: {"features": (3, 96)}, "the SAE has features 0 to 95, found id 96"),
    "too many": (lambda h, t: {"features": 97}, "the SAE has features 0 to 95, found id 96"),
    "double": (lambda h, t: {"features": (3, 4, 3)}, "3 ids are given, but only 2 different ones"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_one_line(home, tmp_path, name):
    change, message = CASES[name]
    with pytest.raises(PlaypenError, match=message) as caught:
        run(config(home, **change(home, tmp_path)), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_row_longer_than_the_model_reads_is_one_line(home, tmp_path):
    base = tiny.tiny_base(tmp_path / "short", context=16)
    write_random_sae(tmp_path / "sae", base)
    with pytest.raises(PlaypenError, match=r"has a row of \d+ tokens, but .*short reads at most 16; make shorter rows"):
        run(config(home, model=str(base), sae=str(tmp_path / "sae")), tmp_path / "out")


def test_a_sae_with_negative_strengths_is_one_line(home, tmp_path):
    from sae_lens import AbsTopKSAE, AbsTopKSAEConfig

    sae = AbsTopKSAE(AbsTopKSAEConfig(d_in=32, d_sae=D_SAE, k=6))
    sae.W_enc.data = torch.randn((32, D_SAE), generator=torch.Generator().manual_seed(0))
    write_random_sae(tmp_path / "signed", home / "base", sae=sae)
    with pytest.raises(PlaypenError, match=r"the SAE \(abstopk\) gives strengths that are negative"):
        run(config(home, sae=str(tmp_path / "signed")), tmp_path / "out")


def test_a_layer_that_neuronpedia_needs_and_nobody_names_is_one_line(home, tmp_path):
    write_random_sae(tmp_path / "early", home / "base", hook="model.embed_tokens.output")
    with pytest.raises(PlaypenError, match=r"names no layer, which Neuronpedia's format needs: set neuronpedia"):
        run(config(home, sae=str(tmp_path / "early"), exports=("neuronpedia",)), tmp_path / "out")


def test_a_feature_count_and_a_list_of_ids_parse_on_the_command_line(home, capsys):
    import tyro

    from playpen import cli

    arguments = cli._stage_arguments(features.Config)
    needed = ["--sae", "a/b", "--model", "a/c", "--data", "a/d"]
    parse = lambda *more: tyro.cli(arguments, args=[*needed, *more], config=(tyro.conf.OmitSubcommandPrefixes,)).config  # noqa: E731
    assert parse().features is None
    assert parse("--features", "64").features == 64
    assert parse("--features", "3", "5", "8").features == (3, 5, 8)
    assert parse("--tokens", "None").tokens is None
