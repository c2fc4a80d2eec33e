"""RDS+ and hidden-state similarity equal arithmetic on each row's own forward pass, whatever stands beside it in a batch."""

import numpy as np
import pytest
import tiny
import torch
from near_copy import CPU, PLACE, chat, data_of, job, make_home, pool_of, unpadded

from playpen.chat import IGNORE
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import load_model
from playpen.rivals import vectors
from playpen.rivals.representations import Hidden, Rds
from playpen.rivals.similarity import cosines
from playpen.tables import read_table

BOS = tiny.SPECIAL.index("<bos>")
ALONE = Machine(device="cpu", forward_tokens=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("representations"))


def states(home, model, split, layer):
    """Return of each row its hidden states [tokens, 32], from its own unpadded forward pass."""
    opened = load_model(home / model, CPU)
    with torch.no_grad():
        rows = read_table(home / "data", split)
        return rows, [
            opened(input_ids=unpadded(ids), output_hidden_states=True).hidden_states[layer][0].numpy()
            for ids in rows["input_ids"]
        ]


def rds_by_hand(home, model, split):
    _, found = states(home, model, split, -1)
    return np.stack([(np.arange(1, len(h) + 1)[:, None] * h).sum(0) / np.arange(1, len(h) + 1).sum() for h in found])


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(("model", "aggregate"), [("base", "max"), ("tuned", "mean")])
def test_rds_is_the_cosine_of_position_weighted_last_hidden_states(home, tmp_path, model, aggregate):
    rows, queries = (rds_by_hand(home, model, split) for split in ("pool", "query"))
    found = Rds(model=str(home / model), aggregate=aggregate)(job(home / "data", tmp_path))
    np.testing.assert_allclose(found, getattr(unit(rows) @ unit(queries).T, aggregate)(1), atol=1e-5)
    written = read_table(tmp_path, "vectors")
    assert written["row_id"].tolist() == pool_of(home)["row_id"].tolist()
    np.testing.assert_allclose(np.stack(written["vector"]), rows, atol=1e-4)


def test_a_padded_batch_gives_the_vectors_of_rows_alone(home, tmp_path):
    lengths = pool_of(home)["num_tokens"]
    assert lengths.nunique() > 4  # rows of a batch are padded
    for method in (Rds(model=str(home / "base")), Hidden(model=str(home / "base"))):
        batched, alone = tmp_path / f"{method.kind}-batched", tmp_path / f"{method.kind}-alone"
        scores = [method(job(home / "data", out, machine=machine)) for out, machine in ((batched, CPU), (alone, ALONE))]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
        both = [np.stack(read_table(out, "vectors")["vector"]) for out in (batched, alone)]
        np.testing.assert_allclose(both[0], both[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", ["answer", "prompt", "all"])
def test_hidden_is_the_cosine_of_means_over_the_tokens_asked_for(home, tmp_path, tokens):
    means = {}
    for split in ("pool", "query"):
        rows, found = states(home, "base", split, 1)
        masks = [(row.labels != IGNORE) if tokens == "answer" else (row.labels == IGNORE) for row in rows.itertuples()]
        masks = [(mask | (tokens == "all")) & (row.input_ids != BOS) for mask, row in zip(masks, rows.itertuples(), strict=True)]
        means[split] = np.stack([h[mask].mean(0) for h, mask in zip(found, masks, strict=True)])
    expected = (unit(means["pool"]) @ unit(means["query"]).T).mean(1)
    method = Hidden(model=str(home / "base"), hook="model.layers.0.output", tokens=tokens)
    np.testing.assert_allclose(method(job(home / "data", tmp_path)), expected, atol=1e-5)
    np.testing.assert_allclose(np.stack(read_table(tmp_path, "vectors")["vector"]), means["pool"], atol=1e-4)


def test_a_row_without_a_token_to_average_has_no_score_and_a_vector_of_zeros(home, tmp_path):
    pool = [tiny.make_chat(seed) for seed in range(3)]
    labels = tiny.data_table(pool)["labels"].to_pylist()
    labels[1] = [IGNORE] * len(labels[1])
    data = data_of(tmp_path / "data", home / "base", pool, labels=labels)
    found = Hidden(model=str(home / "base"))(job(data, tmp_path / "out"))
    assert np.isnan(found).tolist() == [False, True, False]
    assert [bool(np.any(v)) for v in read_table(tmp_path / "out", "vectors")["vector"]] == [True, False, True]


def test_an_answer_of_one_token_is_its_own_mean_and_duplicates_score_alike(home, tmp_path):
    pool = [chat("a", "b"), chat("a ", "b"), tiny.make_chat(1)]
    data = data_of(tmp_path / "data", home / "base", pool)
    for method in (Hidden(model=str(home / "base")), Rds(model=str(home / "base"))):
        found = method(job(data, tmp_path / method.kind))
        assert found[0] == pytest.approx(found[1], abs=1e-6)
        assert abs(found[0] - found[2]) > 1e-3


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(home, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "SHARD", 5)
    method, real, made = Rds(model=str(home / "base")), vectors.weighted_means, []
    whole = method(job(home / "data", tmp_path / "whole"))

    def killed_at_the_fourth(*args):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(args)
        return real(*args)

    monkeypatch.setattr(vectors, "weighted_means", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        method(job(home / "data", tmp_path / "killed"))
    calls = []
    monkeypatch.setattr(vectors, "weighted_means", lambda *args: (calls.append(args), real(*args))[1])
    assert (method(job(home / "data", tmp_path / "killed")) == whole).all()
    assert len(calls) == 1 + 4 - 3
    files = [sorted(p.name for p in (tmp_path / name / "vectors").iterdir()) for name in ("whole", "killed")]
    assert files[0] == files[1] == [f"shard-0000{i}.parquet" for i in range(4)]


def test_an_unknown_hook_names_the_nearest(home, tmp_path):
    with pytest.raises(
        PlaypenError, match=r"hook 'model\.layer\.0\.output' names no module .* nearest: model\.layers\.0\.output"
    ):
        Hidden(model=str(home / "base"), hook="model.layer.0.output")(job(home / "data", tmp_path))


def test_cosines_leave_out_queries_of_zeros_and_give_rows_of_zeros_no_number():
    from scipy.sparse import csr_array

    rows, queries = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]), np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 5.0]])
    for make in (np.array, csr_array):
        np.testing.assert_allclose(cosines(make(rows), make(queries), "mean"), [0.7, np.nan, -0.5])
        kept: list[np.ndarray] = []
        np.testing.assert_allclose(cosines(make(rows), make(queries), "max", kept.append), [0.8, np.nan, 0.0])
        np.testing.assert_allclose(np.concatenate(kept), [[0.6, 0, 0.8], [0, 0, 0], [0, 0, -1]], rtol=1e-6)
        with pytest.raises(PlaypenError, match="all 1 queries have a vector of zeros"):
            cosines(make(rows), make(queries[1:2]), "max")


def test_the_near_copy_of_a_query_is_nearest(home, tmp_path):
    for method in (Rds(model=str(home / "base")), Hidden(model=str(home / "base"), aggregate="max")):
        assert int(method(job(home / "data", tmp_path / method.kind)).argmax()) == PLACE
