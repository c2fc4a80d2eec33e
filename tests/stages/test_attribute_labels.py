"""What may make better labels: end tokens, short answers, one query at a time, checkpoints, Adam's moments, EK-FAC."""

import json

import numpy as np
import pytest
import tiny
from by_hand import CPU, assert_close, cosines, flat, gradients_by_hand, matrices, matrix_gradients, passed_through, row_loss

from playpen import attribution_passes
from playpen.chat import IGNORE
from playpen.config import PlaypenError, make_config
from playpen.losses import sampled_labels
from playpen.models import load_model
from playpen.moments import FILE, read_moments, write_moments
from playpen.stages import attribute
from playpen.tables import read_metrics, read_table

END = tiny.SPECIAL.index("<end_of_turn>")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels")
    tiny.tiny_base(path / "base")
    tiny.tiny_data(path / "data", path / "base", {"pool": 10, "query": 3})
    for seed, name in ((1, "tuned"), (2, "later")):
        tiny.tiny_adapter(path / name, path / "base", seed)
        keep_moments(path / name, path / "data")
    return path


def keep_moments(tuned, data):
    """Let a real Adam take three steps, on a copy in memory, and keep its memory beside the adapter."""
    import torch

    model = load_model(tuned, CPU, trainable=True)
    optimizer = torch.optim.AdamW(list(matrices(model).values()), lr=1e-3)
    for row in read_table(data, "pool").head(3).itertuples():
        row_loss(model, row).backward()
        optimizer.step()
        optimizer.zero_grad()
    write_moments(model, optimizer, tuned / FILE)


def config(home, **changes):
    return attribute.Config(**{"model": str(home / "tuned"), "data": str(home / "data"), "projection_dim": 0, **changes})


def attributed(cfg, out):
    out.mkdir(exist_ok=True)
    attribute.run(cfg, out, CPU)
    return read_table(out, "scores")["score"].to_numpy()


def trimmed(path, home, pool=None):
    """Write the data of `home` with no label on the marker that ends a turn and the line break after it."""
    tables = {}
    for split in ("pool", "query"):
        rows = read_table(home / "data", split)
        labels = [
            [IGNORE if END in (t, b) else t for t, b in zip(r, [0, *r[:-1]], strict=True)] for r in map(list, rows["labels"])
        ]
        tables[split] = tiny.data_table([list(messages) for messages in rows["messages"]], labels=labels)
    return tiny.tiny_data(path, home / "base", tables)


def test_without_end_tokens_a_turns_end_neither_asks_nor_is_asked_for(home, tmp_path):
    by_hand = trimmed(tmp_path / "trimmed", home)
    assert read_table(by_hand, "pool")["num_labels"].sum() < read_table(home / "data", "pool")["num_labels"].sum()
    found = attributed(config(home, end_tokens=False), tmp_path / "out")
    rows, queries = (gradients_by_hand(home / "tuned", by_hand, split) for split in ("pool", "query"))
    assert_close(found, (rows @ queries.T).mean(1))


def ends_only(path, home, split):
    """Write data whose first row of a split answers with nothing but the end of its turn."""
    tables = {name: tiny.data_table([list(m) for m in read_table(home / "data", name)["messages"]]) for name in ("pool", "query")}
    labels = [list(row) for row in tables[split]["labels"].to_pylist()]
    labels[0] = [token if token == END else IGNORE for token in labels[0]]
    chats = [list(m) for m in read_table(home / "data", split)["messages"]]
    return tiny.tiny_data(path, home / "base", {**tables, split: tiny.data_table(chats, labels=labels)})


def test_a_row_that_only_ends_its_turn_comes_last_and_such_a_query_is_named(home, tmp_path):
    data = ends_only(tmp_path / "pool", home, "pool")
    found = attributed(config(home, data=str(data), end_tokens=False), tmp_path / "out")
    assert found[0] < found[1:].min()
    assert read_metrics(tmp_path / "out")["unscored"] == 1
    data = ends_only(tmp_path / "query", home, "query")
    first = read_table(data, "query")["row_id"].iloc[0]
    with pytest.raises(PlaypenError, match=f"row_id {first} of query answers with nothing but the end"):
        attributed(config(home, data=str(data), end_tokens=False), tmp_path / "none")


def test_rows_with_few_labels_come_last_and_change_no_other_score(home, tmp_path):
    labels = read_table(home / "data", "pool")["num_labels"].to_numpy()
    least = int(np.sort(labels)[4])
    few = labels < least
    whole, found = attributed(config(home), tmp_path / "whole"), attributed(config(home, min_labels=least), tmp_path / "out")
    assert 0 < few.sum() < len(few)
    assert_close(found[~few], whole[~few], 1e-6)
    assert (found[few] == found[few][0]).all()
    assert found[few][0] < found[~few].min() < found[few][0] + 1e-5
    metrics = read_metrics(tmp_path / "out")
    assert (metrics["unscored"], metrics["rows"], metrics["coverage"]) == (few.sum(), len(few), 1 - few.mean())
    lines = [json.loads(line) for line in (tmp_path / "out" / "row_diagnostics.jsonl").read_text().splitlines()]
    assert [line["loss"] is None for line in lines] == few.tolist()
    with pytest.raises(PlaypenError, match="no row has 999 labels"):
        attributed(config(home, min_labels=999), tmp_path / "none")


@pytest.mark.parametrize("aggregation", ["mean", "nearest"])
def test_per_query_scores_are_the_dots_whose_mean_or_maximum_is_the_score(home, tmp_path, aggregation):
    rows, queries = (gradients_by_hand(home / "tuned", home / "data", split) for split in ("pool", "query"))
    found = attributed(config(home, aggregation=aggregation, per_query=True), tmp_path / "out")
    each = read_table(tmp_path / "out", "query_scores")
    assert each["row_id"].tolist() == read_table(home / "data", "pool")["row_id"].tolist()
    assert_close(np.stack(each["scores"].to_numpy()), rows @ queries.T)
    assert_close(found, (rows @ queries.T).mean(1) if aggregation == "mean" else (rows @ queries.T).max(1))
    assert_close(found, attributed(config(home, aggregation=aggregation), tmp_path / "alone"), 1e-5)


@pytest.mark.parametrize("aggregation", ["mean", "nearest"])
def test_checkpoints_are_averaged_by_weight_before_the_queries_are(home, tmp_path, aggregation):
    parts = []
    for name in ("tuned", "later"):
        rows, queries = (gradients_by_hand(home / name, home / "data", split) for split in ("pool", "query"))
        parts.append(cosines(rows, queries))
    both = 0.75 * parts[0] + 0.25 * parts[1]
    changes = {"checkpoints": (str(home / "later"),), "weights": (3.0, 1.0), "unit_normalize": True}
    found = attributed(config(home, aggregation=aggregation, **changes), tmp_path / "out")
    assert_close(found, both.mean(1) if aggregation == "mean" else both.max(1))


@pytest.mark.parametrize("unit_normalize", [False, True])
def test_the_second_moment_divides_every_gradient_entry_by_entry(home, tmp_path, unit_normalize):
    model, kept = load_model(home / "tuned", CPU, trainable=True), read_moments(home / "tuned")
    parts = []
    for split in ("pool", "query"):
        gradients = matrix_gradients(model, read_table(home / "data", split))
        scale = {name: (kept.second[name] / (1 - 0.999**3)).sqrt() + 1e-8 for name in kept.second}
        parts.append(flat([{name: g / scale[name] for name, g in row.items()} for row in gradients]))
    expected = cosines(*parts) if unit_normalize else parts[0] @ parts[1].T
    found = attributed(config(home, moments="second", unit_normalize=unit_normalize), tmp_path / "out")
    assert_close(found, expected.mean(1))


def adam_steps(home):
    """Return [rows, numbers]: how far Adam's next step on each row alone moves the matrices, per unit of learning rate."""
    import torch

    kept, steps = read_moments(home / "tuned"), []
    for gradients in matrix_gradients(load_model(home / "tuned", CPU, trainable=True), read_table(home / "data", "pool")):
        weights = {name: torch.nn.Parameter(torch.zeros_like(g)) for name, g in gradients.items()}
        optimizer = torch.optim.Adam(list(weights.values()), lr=1.0)
        for name, weight in weights.items():
            state = {"step": torch.tensor(float(kept.step)), "exp_avg": kept.first[name], "exp_avg_sq": kept.second[name]}
            optimizer.state[weight] = {key: value.clone() for key, value in state.items()}
            weight.grad = gradients[name].clone()
        optimizer.step()
        steps.append({name: -weight for name, weight in weights.items()})
    return flat(steps)


def test_adams_step_on_a_row_is_what_the_real_optimizer_makes_of_it(home, tmp_path):
    expected = cosines(adam_steps(home), gradients_by_hand(home / "tuned", home / "data", "query"))
    found = attributed(config(home, moments="adam", unit_normalize=True), tmp_path / "out")
    assert_close(found, expected.mean(1))
    projected = attributed(config(home, moments="adam", unit_normalize=True, projection_dim=64), tmp_path / "projected")
    assert np.corrcoef(found, projected)[0, 1] > 0.9


def ekfac_by_hand(model, rows, damping, power=1.0):
    """Return a function from gradients by matrix to H^-power times them, H being EK-FAC's on labels that the model draws."""
    import torch

    ids = rows["input_ids"].tolist()
    rows = rows.assign(labels=sampled_labels(model, ids, rows["labels"].tolist(), CPU, 0))
    inputs, outputs = dict.fromkeys(matrices(model), 0.0), dict.fromkeys(matrices(model), 0.0)
    whole = {name: [] for name in matrices(model)}
    for row in rows.itertuples():
        with passed_through(model) as seen:
            loss = row_loss(model, row, "sum") / (row.labels[1:] != IGNORE).sum() ** 0.5
            loss.backward()
        for name, (a, made) in seen.items():
            a, s = a[:-1].double(), made.grad[0, :-1].double()
            inputs[name], outputs[name] = inputs[name] + a.T @ a, outputs[name] + s.T @ s
            whole[name].append(s.T @ a)
    model.zero_grad()
    bases = {name: (torch.linalg.eigh(inputs[name])[1], torch.linalg.eigh(outputs[name])[1]) for name in whole}
    values = {name: torch.stack([(qs.T @ part @ qa) ** 2 for part in whole[name]]).mean(0) for name, (qa, qs) in bases.items()}

    def inverse(gradients):
        found = {}
        for name, g in gradients.items():
            (qa, qs), v = bases[name], values[name]
            found[name] = qs @ ((qs.T @ g.double() @ qa) / (v + damping * v.mean()) ** power) @ qa.T
        return found

    return inverse


@pytest.mark.parametrize("rows_of", ["query", "split"])
def test_ekfac_is_the_inverse_in_the_factors_eigenbasis_with_measured_eigenvalues(home, tmp_path, rows_of):
    model = load_model(home / "tuned", CPU, trainable=True)
    pool, query = (read_table(home / "data", split) for split in ("pool", "query"))
    inverse = ekfac_by_hand(model, query if rows_of == "query" else pool, 0.3)
    queries = flat([inverse(row) for row in matrix_gradients(model, query)])
    expected = (flat(matrix_gradients(model, pool)) @ queries.T).mean(1)
    found = attributed(config(home, preconditioner="ekfac", preconditioner_rows=rows_of, damping=0.3), tmp_path / "out")
    assert_close(found, expected, 2e-3)
    assert read_metrics(tmp_path / "out")["settings"]["ev_correction"]
    assert np.corrcoef(found, attributed(config(home), tmp_path / "plain"))[0, 1] < 0.999


def test_ekfac_with_unit_normalize_puts_its_root_on_both_sides(home, tmp_path):
    model = load_model(home / "tuned", CPU, trainable=True)
    pool, query = (read_table(home / "data", split) for split in ("pool", "query"))
    root = ekfac_by_hand(model, query, 0.3, power=0.5)
    rows, queries = (flat([root(row) for row in matrix_gradients(model, part)]) for part in (pool, query))
    found = attributed(config(home, preconditioner="ekfac", unit_normalize=True, damping=0.3), tmp_path / "out")
    assert_close(found, cosines(rows, queries).mean(1), 2e-3)


def test_a_killed_run_over_checkpoints_goes_on_and_ends_as_if_never_killed(home, tmp_path, monkeypatch):
    monkeypatch.setattr(attribution_passes, "SHARD", 4)
    cfg = config(home, checkpoints=(str(home / "later"),), preconditioner="ekfac", per_query=True)
    whole, real, made = attributed(cfg, tmp_path / "whole"), attribution_passes._shard, []

    def killed_in_the_second_model(scoring, rows, file, bar):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(file)
        return real(scoring, rows, file, bar)

    monkeypatch.setattr(attribution_passes, "_shard", killed_in_the_second_model)
    with pytest.raises(KeyboardInterrupt):
        attributed(cfg, tmp_path / "killed")
    monkeypatch.setattr(attribution_passes, "_shard", real)
    times = {file: file.stat().st_mtime_ns for file in made}
    monkeypatch.setattr(attribute.shutil, "rmtree", lambda path: None)
    assert (attributed(cfg, tmp_path / "killed") == whole).all()
    assert {file: file.stat().st_mtime_ns for file in made} == times, "finished shards were made again"
    each = [np.stack(read_table(tmp_path / name, "query_scores")["scores"].to_numpy()) for name in ("whole", "killed")]
    assert (each[0] == each[1]).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": (1.0, 2.0)}, "weights has 2 numbers for 1 models"),
        ({"preconditioner": "ekfac", "projection_dim": 16}, "set projection_dim to 0"),
        ({"preconditioner": "ekfac", "moments": "second"}, "set moments to none"),
        ({"preconditioner": "autocorrelation", "moments": "adam", "projection_dim": 8}, "set preconditioner to none"),
    ],
)
def test_fields_that_contradict_each_other_are_refused_when_the_config_is_made(home, changes, words):
    values = {"model": str(home / "tuned"), "data": str(home / "data"), "projection_dim": 0, **changes}
    with pytest.raises(PlaypenError, match=words):
        make_config(attribute.Config, values, "entry 'scores'")


def test_a_model_that_kept_no_moments_or_stands_on_another_base_is_one_line(home, tmp_path):
    tiny.tiny_adapter(tmp_path / "bare", home / "base")
    with pytest.raises(PlaypenError, match="finetune it again with keep_moments"):
        attributed(config(home, model=str(tmp_path / "bare"), moments="adam"), tmp_path / "none")
    tiny.tiny_base(tmp_path / "strange", seed=7)
    tiny.tiny_adapter(tmp_path / "other", tmp_path / "strange")
    with pytest.raises(PlaypenError, match="fits only the base"):
        attributed(config(home, checkpoints=(str(tmp_path / "other"),)), tmp_path / "none")
