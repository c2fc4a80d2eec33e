"""The report: its sentence follows the data, its page is whole, safe and the same every time."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from playpen import artifact
from playpen.cli import main
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.stage import run_stage
from playpen.stages import report
from playpen.tables import row_id, write_json, write_table

ARMS = {"sae": -0.15, "random": 0.0, "quality": -0.02, "attribution": -0.16}
SKILLS, FAULTS, SOURCES = ("facts", "counting", "stories"), ("", "", "wrong answer", "off topic"), ("forum", "textbook", "logs")
HOSTILE = "<script>alert('x')</script> & <b>bold</b> {braces}"


def seal(path: Path, kind: str, fill: Callable[[Path], None], config: dict[str, Any] | None = None, seconds: float = 1.5) -> Path:
    """Let `fill(part)` write files and seal them as an artifact named by its fingerprint."""
    mark = artifact.fingerprint(kind, 1, {"name": path.name, **(config or {})})
    part = path.with_name(path.name + ".part")
    part.mkdir(parents=True)
    fill(part)
    origin = {
        "started": "2024-01-01T00:00:00Z",
        "seconds": seconds,
        "command": "playpen run demo",
        "packages": {"torch": "2.13.0"},
    }
    final = path.with_name(f"{path.name}-{mark}")
    artifact.seal(
        part, final, {"name": path.name, "kind": kind, "version": 1, "fingerprint": mark, "config": config or {}}, origin
    )
    return final


def mark_of(path: Path) -> str:
    return artifact.read_manifest(path)["fingerprint"]


def make_data(root: Path, rng: np.random.Generator, rows: int) -> Path:
    """Write a data artifact with planted truth; its first chat is hostile."""
    chats = [[{"role": "user", "content": f"Question {i}: what is under the stone?"}] for i in range(rows)]
    for i, chat in enumerate(chats):
        chat.append(
            {"role": "assistant", "content": HOSTILE if i == 0 else f"A lamp lies under stone {i}.\n\nIt was there before."}
        )
    chats[1].insert(0, {"role": "system", "content": "Answer like a geologist."})
    ids = [row_id(chat) for chat in chats]
    frame = {"row_id": ids, "messages": chats, "num_tokens": rng.integers(20, 200, rows).astype("int32")}
    frame |= {"source": rng.choice(SOURCES, rows).tolist(), "quality_score": rng.uniform(0, 5, rows).astype("float32")}

    def fill(out: Path) -> None:
        write_table(out / "pool.parquet", pa.table(frame))
        truth = {"row_id": ids, "skill": rng.choice(SKILLS, rows).tolist(), "source": frame["source"]}
        write_table(out / "truth.parquet", pa.table({**truth, "fault": rng.choice(FAULTS, rows).tolist()}), truth=True)
        write_json(out / "metrics.json", {"rows": {"pool": rows}, "tokens": {"pool": int(frame["num_tokens"].sum())}})

    return seal(root / "data", "build-data", fill)


def make_evaluation(root: Path, rng: np.random.Generator, items: int, seeds: int, effects: dict[str, float]) -> Path:
    """Write an evaluate artifact in which an arm's loss is lower than random's by its effect."""
    hard, losses, answers = rng.normal(2, 0.5, items), [], []
    models = {
        "base": 2.2,
        **{f"{arm}-{seed}": effect + rng.normal(0, 0.01) for arm, effect in effects.items() for seed in range(seeds)},
    }
    for model, effect in models.items():
        noise = rng.normal(0, 0.05, items)
        losses += [(model, f"t{i}", ("riddles", "trivia")[i % 2], hard[i] + effect + noise[i], 4) for i in range(items)]
        answers += [(model, "arc", f"part {i % 2}", i // 2, bool(rng.random() < 0.5 - effect)) for i in range(items)]

    def fill(out: Path) -> None:
        write_table(out / "losses.parquet", pd.DataFrame(losses, columns=["model", "row_id", "task", "loss", "num_labels"]))
        write_table(out / "items.parquet", pd.DataFrame(answers, columns=["model", "task", "subtask", "item", "correct"]))
        write_json(out / "metrics.json", {"models": {model: {} for model in models}})

    return seal(root / "evaluation", "evaluate", fill)


def make_scores(root: Path, name: str, kind: str, data: Path, seed: int) -> Path:
    ids = pd.read_parquet(data / "pool.parquet", columns=["row_id"])["row_id"]
    values = np.random.default_rng(seed).normal(0, 1, len(ids)).astype("float32")
    values[0] = 9  # the hostile chat is the first choice, so that it is shown

    def fill(out: Path) -> None:
        write_table(out / "scores.parquet", pd.DataFrame({"row_id": ids, "score": values}))
        write_json(out / "metrics.json", {"rows": len(ids)})

    return seal(root / name, kind, fill, {"data": mark_of(data)}, seconds=20.0)


def make_selection(root: Path, arm: str, scores: Path, keep: int) -> Path:
    rows = pd.read_parquet(scores / "scores.parquet").sort_values("score", ascending=False, ignore_index=True)
    rows["rank"], rows["kept"] = np.arange(1, len(rows) + 1, dtype="int32"), np.arange(len(rows)) < keep
    rows["reason"] = np.where(rows["kept"], "score reaches the last kept", "score is below the last kept")
    return seal(
        root / f"select-{arm}", "select", lambda out: write_table(out / "selection.parquet", rows), {"scores": mark_of(scores)}
    )


def make_classifier(root: Path, rng: np.random.Generator, data: Path) -> Path:
    ids = pd.read_parquet(data / "pool.parquet", columns=["row_id"])["row_id"]
    frames, models = [], {}
    for name, noise in (("mean_pooling", 0.8), ("global_statistics", 3.0)):
        score = rng.normal(0, 1, len(ids))
        seen = 1 / (1 + np.exp(-2 * (score + rng.normal(0, noise, len(ids)))))
        label = (score > 0.6).astype("int8")
        frames.append(pd.DataFrame({"row_id": ids, "model": name, "label": label, "score": score, "prediction": seen}))
        models[name] = {
            "auroc": {"value": 0.9 - noise / 10, "low": 0.85 - noise / 10, "high": 0.95 - noise / 10},
            "accuracy": 0.8,
        }

    def fill(out: Path) -> None:
        write_table(out / "heldout.parquet", pd.concat(frames))
        write_json(out / "metrics.json", {"models": models, "best": "mean_pooling"})

    features = seal(
        root / "features", "fingerprint", lambda out: write_json(out / "metrics.json", {"rows": 7}), {"data": mark_of(data)}
    )
    return seal(root / "classifier", "classify", fill, {"features": mark_of(features)})


def experiment(root: Path, rows: int = 60, items: int = 40, seeds: int = 3, effects: dict[str, float] = ARMS) -> dict[str, Any]:
    """Write every artifact that a report can read and return the fields of its config."""
    rng = np.random.default_rng(0)
    data = make_data(root, rng, rows)
    scores, predictions = make_scores(root, "scores", "attribute", data, 1), make_scores(root, "predictions", "predict", data, 2)
    picks = {arm: make_selection(root, arm, predictions if arm == "sae" else scores, rows // 3) for arm in ("sae", "attribution")}
    return {
        "title": "A test",
        "question": f"Does it help? {HOSTILE}",
        "data": str(data),
        "evaluation": str(make_evaluation(root, rng, items, seeds, effects)),
        "arms": {arm: tuple(f"{arm}-{seed}" for seed in range(seeds)) for arm in effects},
        "selections": {arm: str(path) for arm, path in picks.items()},
        "scores": str(scores),
        "predictions": str(predictions),
        "classifier": str(make_classifier(root, rng, data)),
        "reference_models": ("base",),
    }


def run(fields: dict[str, Any], out: Path) -> Path:
    out.mkdir()
    run_stage("report", report.Config(**fields), out, Machine())
    return out


def plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave the optional inputs out."""
    return {name: value for name, value in fields.items() if name not in ("scores", "predictions", "classifier", "selections")}


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def full(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(fields, tmp_path_factory.mktemp("full") / "report")


class Reader(HTMLParser):
    """Collects tags, links and text, and checks that tags close in order."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "xlink:href", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_loads_nothing(full: Path) -> None:
    page = (full / "index.html").read_text()
    reader = Reader(page)
    assert reader.open == []
    assert reader.links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_every_figure_has_an_alt_text_a_caption_and_a_file(full: Path) -> None:
    page = (full / "index.html").read_text()
    figures = re.findall(r"<figure>.*?</figure>", page, re.S)
    assert len(figures) == len(list((full / "figures").glob("*.png"))) == 15
    for figure in figures:
        assert re.search(r'role="img" aria-label="[^"]{20,}"', figure)
        assert re.search(r"<figcaption>[^<]{20,}</figcaption>", figure)


def test_hostile_text_is_shown_and_does_nothing(full: Path) -> None:
    page = (full / "index.html").read_text()
    reader = Reader(page)
    assert reader.tags.count("script") == 1
    turns = re.findall(r'<span class="role">assistant</span><p>(.*?)</p>', page, re.S)
    assert any("&lt;script&gt;" in turn and "<" not in turn for turn in turns)


def test_the_sentence_tells_the_planted_effect_with_its_interval(full: Path) -> None:
    numbers = json.loads((full / "metrics.json").read_text())
    found = numbers["paired"]["random"]["loss"]
    assert found["low"] < -0.15 < found["high"] < 0
    assert numbers["answer"].startswith("On these 3 seeds, training on the 20 examples")
    assert f"difference \u2212{-found['effect']:.3f}" in numbers["answer"]
    assert "lower in 3 of 3 seeds" in numbers["answer"]
    assert numbers["answer"] in (full / "index.html").read_text()
    assert numbers["paired"]["attribution"]["loss"]["verdict"] == "open"


def test_swapping_the_arms_says_first_that_the_subject_lost(fields: dict[str, Any], tmp_path: Path) -> None:
    out = run({**plain(fields), "subject": "random", "baseline": "sae"}, tmp_path / "report")
    numbers = json.loads((out / "metrics.json").read_text())
    assert numbers["answer"].startswith("random lost to sae: on these 3 seeds")
    assert "lower in 0 of 3 seeds" in numbers["answer"]
    assert numbers["verdict"] == "Higher loss than sae"


def test_arms_that_do_not_differ_are_called_so(fields: dict[str, Any], tmp_path: Path) -> None:
    out = run({**plain(fields), "baseline": "attribution"}, tmp_path / "report")
    assert json.loads((out / "metrics.json").read_text())["answer"].startswith("sae cannot be told apart from attribution")


def test_sections_without_input_are_left_out(full: Path, fields: dict[str, Any], tmp_path: Path) -> None:
    titles = re.compile(r"<h2>(.*?)</h2>")
    always = ["The arms side by side", "Paired differences", "What it cost", "How to make this again"]
    assert titles.findall((run(plain(fields), tmp_path / "report") / "index.html").read_text()) == always
    more = ["Predicting attribution", "Scores", "What was chosen", "Examples"]
    assert titles.findall((full / "index.html").read_text()) == always[:2] + more + always[2:]


def with_verdict(classifier: str, root: Path, low: float) -> str:
    """Seal the classifier again as classify makes it now: with what each row uses, differences, a verdict and shuffled runs."""
    old = Path(classifier)
    metrics = json.loads((old / "metrics.json").read_text())
    names = ("mean_pooling", "source_length")
    uses = dict(zip(names, ("features", "metadata"), strict=True))
    models = {
        name: {"uses": uses[name], "auroc": a, "auroc_low": a - 0.03, "auroc_high": a + 0.03}
        for name, a in zip(names, (0.8, 0.85), strict=True)
    }
    models["shuffled"] = {"uses": "features", "auroc": 0.51, "auroc_low": 0.4, "auroc_high": 0.62, "spearman": None}
    gap = {"value": low + 0.02, "low": low, "high": low + 0.04}
    rows = [
        {"model": "mean_pooling", "against": "source_length", "measure": m, **gap} for m in ("auroc", "spearman_within_source")
    ]
    verdict = {"against": "source_length", "sentence": "The features cannot be told apart from source and length: so and so."}
    shuffled = {"auroc": 0.51, "auroc_low": 0.4, "auroc_high": 0.62, "holds_half": True}

    def fill(out: Path) -> None:
        write_table(out / "heldout.parquet", pd.read_parquet(old / "heldout.parquet"))
        write_table(out / "differences.parquet", pd.DataFrame(rows))
        found = {"models": models, "saved": "mean_pooling", "label": "top", "verdict": verdict, "together": None}
        write_json(out / "metrics.json", {**metrics, **found, "shuffled": shuffled})

    return str(seal(root / "verdict", "classify", fill))


def test_the_part_on_predictors_says_first_whether_features_beat_source_and_length(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    out = run({**plain(fields), "classifier": with_verdict(fields["classifier"], tmp_path, -0.07)}, tmp_path / "report")
    text = (out / "report.md").read_text()
    part = text[text.index("## Predicting attribution") :]
    assert part.split("\n\n")[1].startswith(
        "The features cannot be told apart from source and length: so and so. On shuffled labels"
    )
    table = [line.split(" | ") for line in part.splitlines() if line.startswith("| ")]
    assert table[0][1:3] == ["uses", "AUROC"]
    assert table[0][-2] == "AUROC minus source_length"
    assert [row[0].strip("| ") for row in table[2:5]] == ["source_length", "mean_pooling", "shuffled"]
    assert table[3][-2] == "\u22120.050 (\u22120.070 to \u22120.030)"
    assert table[2][-2] == "\u2013"
    assert '<td class="num bad" data-sort="-0.05' in (out / "index.html").read_text()
    assert json.loads((out / "metrics.json").read_text())["classifier"]["verdict"]["against"] == "source_length"


def test_the_same_input_gives_the_same_bytes(full: Path, fields: dict[str, Any], tmp_path: Path) -> None:
    again = run(fields, tmp_path / "report")
    files = [file.relative_to(full) for file in full.rglob("*") if file.is_file()]
    assert [str(file) for file in files if (full / file).read_bytes() != (again / file).read_bytes()] == []


def test_the_summary_takes_the_path_and_keeps_other_braces(full: Path) -> None:
    text = (full / "summary.txt").read_text().format(path="runs/x")
    assert text.endswith("page: runs/x/index.html\n")
    assert "{braces}" in text
    rows = [line.split()[0] for line in text.splitlines() if re.match(r"(sae|random|quality|attribution|base) ", line)]
    assert sorted(rows) == sorted([*ARMS, "base"])


def test_artifacts_behind_the_inputs_are_found_and_counted(full: Path) -> None:
    seconds = json.loads((full / "metrics.json").read_text())["seconds"]
    assert sorted(name.rsplit("-", 1)[0] for name in seconds) == sorted(
        ["data", "scores", "predictions", "select-sae", "select-attribution", "evaluation", "features", "classifier"]
    )
    assert "| fingerprint | 1 | 1.5 |" in (full / "report.md").read_text()


def test_examples_are_ten_of_each_spread_over_the_ranks() -> None:
    from playpen.report_page.examples import choose

    rows = pd.DataFrame({"rank": range(1, 101), "kept": [rank <= 30 for rank in range(1, 101)]})
    kept, rejected = choose(rows)
    assert kept["rank"].tolist() == [1, 4, 7, 11, 14, 17, 20, 24, 27, 30]
    assert (len(rejected), rejected["rank"].min(), rejected["rank"].max()) == (10, 31, 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": "sea"}, "did you mean sae"),
        ({"arms": {"sae": ("sae-0",), "random": ("random-0", "random-1")}}, "as many models"),
        ({"arms": {"sae": ("sae-0",), "random": ("random-7",)}}, "no model 'random-7'"),
        ({"selections": {"nobody": "/x/y"}}, "no arm"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused_in_one_line(fields: dict, change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(PlaypenError, match=message) as error:
        run({**plain(fields), **change}, tmp_path / "report")
    assert "\n" not in str(error.value)


def test_a_model_that_was_asked_fewer_items_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    losses = pd.read_parquet(Path(fields["evaluation"]) / "losses.parquet")
    gone = (losses["model"] == "sae-1") & (losses["row_id"] == "t3")
    fewer = seal(tmp_path / "fewer", "evaluate", lambda out: write_table(out / "losses.parquet", losses[~gone]))
    with pytest.raises(PlaypenError, match="'sae-1' has no value for row_id t3 of task 'trivia'"):
        run({**plain(fields), "evaluation": str(fewer)}, tmp_path / "report")


def test_flags_name_the_models_of_an_arm_in_one_word(fields: dict[str, Any], tmp_path: Path) -> None:
    flags = ["--title", "T", "--question", "Q", "--data", fields["data"], "--evaluation", fields["evaluation"]]
    picked = ["--selections", "sae", fields["selections"]["sae"]]
    main(["report", *flags, "--arms", "sae", "sae-0,sae-1", "random", "random-0,random-1", *picked, "--root", str(tmp_path)])
    (made,) = tmp_path.glob("report-*")
    config = artifact.read_manifest(made)["config"]
    assert config["arms"] == {"sae": ["sae-0", "sae-1"], "random": ["random-0", "random-1"]}
    assert config["selections"] == {"sae": mark_of(Path(fields["selections"]["sae"]))}


def test_texts_are_found_in_whichever_split_holds_them(tmp_path: Path) -> None:
    from playpen.report_page.sources import read_chats

    for split, text in (("pool", "here"), ("large_pool", "there")):
        write_table(
            tmp_path / f"{split}.parquet", pa.table({"row_id": [split], "messages": [[{"role": "user", "content": text}]]})
        )
    assert read_chats(str(tmp_path), ["large_pool"]) == {"large_pool": [{"role": "user", "content": "there"}]}
