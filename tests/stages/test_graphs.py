"""Training graphs: what was planted is drawn, wherever it was written down, and what is missing is said."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import write_artifact
from wandb_server import Server, run_record, wandb_server

from playpen.cli import main
from playpen.config import PlaypenError
from playpen.graph_axes import POINTS, name_text, power_text, rate_text, thin, tokens_text
from playpen.machine import Machine
from playpen.report_page import drawing
from playpen.run_history import NONE, Density, RunHistory, density_of, read_trained, settings_that_differ
from playpen.stage import run_stage
from playpen.stages import graphs
from playpen.tables import write_json, write_table
from playpen.training_figures import GRAPHS, curves_figure, density_figure, figures, median
from playpen.wandb_runs import DENSITY_KEYS, EVALUATION_KEYS, TOKENS, TRAINING_KEYS, read_offline, read_online

STEPS = 40
ALL = ["ce_score", "dead_fraction", "density", "explained_variance", "l0", "loss", "lr"]
BY_NAME = {graph.name: graph for graph in GRAPHS}
DENSITIES = np.array([0.0, 0.0, 0.01, 0.01, 0.02, 0.5, 1.0, 0.001], np.float32)


def history(level: float = 1.0, tokens: int = 1000) -> pd.DataFrame:
    """Return a history in which every measure is known at every step."""
    x = np.arange(1, STEPS + 1)
    return pd.DataFrame(
        {
            "step": x,
            "tokens": x * tokens,
            "loss": level * 100 / x,
            "l0": level * 16.0,
            "explained_variance": 1 - level / x,
            "aux_loss": 0.0,
            "dead_fraction": level * x / 100,
            "lr": 3e-4 * np.minimum(1, (STEPS - x + 1) / 10),
        }
    )


def evaluation(level: float = 1.0, tokens: int = 1000) -> pd.DataFrame:
    x = np.array([10, 20, 40])
    return pd.DataFrame(
        {
            "tokens": x * tokens,
            "explained_variance": 1 - level / x,
            "l0": level * 15.0,
            "dead_fraction": level * 0.25,
            "ce_score_zero": 0.9 - level / x,
            "ce_score_mean": 0.8 - level / x,
        }
    )


def fill(folder: Path, level: float, version: int = 2, tokens: int = 1000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "history.parquet", history(level, tokens))
    write_json(folder / "metrics.json", {"explained_variance": 0.123, "l0": 14.5, "sources": {"a": 1}, "tokens": STEPS * tokens})
    if version == 2:
        write_table(folder / "evaluation.parquet", evaluation(level, tokens))
        features = np.arange(len(DENSITIES), dtype="int32")
        write_table(folder / "density.parquet", pd.DataFrame({"feature": features, "density": DENSITIES}))


def trained(path: Path, level: float = 1.0, version: int = 2, tokens: int = 1000, **config: Any) -> str:
    """Write an artifact of train-sae with planted curves."""
    return str(write_artifact(path, "train-sae", lambda out: fill(out, level, version, tokens), {"d_sae": 8, **config}))


@pytest.fixture(scope="module")
def saes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("saes")
    return trained(root / "low", 1.0, k=16), trained(root / "old", 2.0, version=1, k=32)


def make(out: Path, **fields: Any) -> Path:
    out.mkdir()
    run_stage("graphs", graphs.Config(**fields), out, Machine())
    return out


@pytest.fixture(scope="module")
def pair(saes: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("pair") / "graphs", saes=saes, title="<b>Two</b> runs")


def axes_of(figure: Any, runs: list[RunHistory], *more: Any) -> tuple[Any, Any]:
    """Let a figure be painted, and return (its axes, what it would put on the page)."""
    from matplotlib.figure import Figure as Canvas

    axes = Canvas().subplots()

    def draw(name: str, paint: Any, alt: str, caption: str, height: float) -> Any:
        paint(axes)
        return drawing.Figure(name, "", alt, caption)

    return axes, figure(draw, runs, *more)


def test_every_measure_of_an_artifact_is_read_as_it_was_written(saes: tuple[str, str]) -> None:
    (found,) = read_trained(saes[0])
    for name in ("loss", "l0", "explained_variance", "dead_fraction", "lr"):
        assert found.curve(name)["value"].tolist() == history()[name].tolist()
    for name in ("explained_variance", "l0", "dead_fraction", "ce_score_zero", "ce_score_mean"):
        assert found.curve(name, True)["value"].tolist() == evaluation()[name].tolist()
    assert found.curve("loss")["tokens"].tolist() == history()["tokens"].tolist()


def test_final_numbers_are_those_of_the_saved_sae_then_of_the_last_evaluation_then_of_training(saes: tuple[str, str]) -> None:
    (found,) = read_trained(saes[0])
    assert found.last("explained_variance") == (0.123, True)
    assert found.last("dead_fraction") == (0.25, True)
    assert found.last("loss") == (2.5, False)
    assert read_trained(saes[1])[0].last("ce_score_zero") == (None, False)


def test_a_density_histogram_counts_each_feature_once_and_never_active_ones_apart() -> None:
    found = density_of(DENSITIES)
    assert (found.counts.sum(), found.features, found.never) == (6, 8, 0.25)
    for density, features in ((0.01, 2), (0.02, 1), (0.5, 1), (1.0, 1), (0.0011, 1)):
        place = min(np.searchsorted(found.edges, np.log10(density), side="right") - 1, len(found.counts) - 1)
        assert found.counts[place] == features
    assert float((found.per_decade * np.diff(found.edges)).sum()) == pytest.approx(1 - found.never)
    assert median(Density(np.array([-3.0, -2.0, -1.0]), np.array([1.0, 1.0]), 2)) == -2.0


def test_densities_that_are_all_zero_make_an_empty_histogram() -> None:
    found = density_of(np.zeros(5, np.float32))
    assert (found.never, found.counts.sum()) == (1.0, 0)
    _, figure = axes_of(density_figure, [RunHistory("x", "", NONE, NONE, found)])
    assert "100.00% of x" in figure.caption


def test_the_page_holds_every_graph_of_two_runs_and_loads_nothing(pair: Path) -> None:
    page = (pair / "index.html").read_text()
    assert sorted(file.stem for file in (pair / "figures").glob("*.png")) == ALL
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', page)) == len(ALL)
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "<b>Two</b>" not in page
    assert "&lt;b&gt;Two&lt;/b&gt; runs" in page
    assert "playpen graphs" in page


def test_colours_turn_with_the_page(pair: Path) -> None:
    page = (pair / "index.html").read_text()
    svgs = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert not [color for color in drawing.VARIABLES if color in svgs]
    for color in drawing.SERIES:
        assert re.search(rf"--{drawing.VARIABLES[color]}: #", page)


def test_numbers_say_what_was_evaluated(pair: Path) -> None:
    found = json.loads((pair / "metrics.json").read_text())
    assert sorted(found["graphs"]) == ALL
    assert found["runs"]["low"]["final"]["explained_variance"] == {"value": 0.123, "evaluated": True}
    assert found["runs"]["old"]["final"]["loss"] == {"value": 5.0, "evaluated": False}
    assert found["runs"]["low"]["never_active"] == 0.25
    assert found["runs"]["old"]["tokens"] == 40000


def test_a_run_without_numbers_is_left_out_of_a_graph_and_named(pair: Path) -> None:
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", (pair / "index.html").read_text(), re.S)
    told = [caption for caption in captions if "Not drawn, for want of numbers: old." in caption]
    assert len(told) == 2
    assert any("cross-entropy" in caption for caption in told)
    assert any("Never active" in caption for caption in told)


def test_a_graph_that_no_run_has_numbers_for_is_named_and_not_drawn(saes: tuple[str, str]) -> None:
    runs, config = read_trained(saes[1]), graphs.Config(saes=saes[1:])
    drawn = figures(lambda name, paint, alt, caption, height: drawing.Figure(name, "", alt, caption), runs)
    assert set(drawn) == set(ALL) - {"ce_score", "density"}
    assert graphs.make_page(config, runs, drawn).sections[0].lead == "No run has numbers for CE-loss score and feature density."


def test_the_same_input_gives_the_same_bytes(pair: Path, saes: tuple[str, str], tmp_path: Path) -> None:
    again = make(tmp_path / "graphs", saes=saes, title="<b>Two</b> runs")
    files = [file.relative_to(pair) for file in pair.rglob("*") if file.is_file()]
    assert [str(file) for file in files if (pair / file).read_bytes() != (again / file).read_bytes()] == []


def test_runs_lie_over_each_other_in_colours_of_their_own(saes: tuple[str, str]) -> None:
    runs = [found for sae in saes for found in read_trained(sae)]
    axes, figure = axes_of(curves_figure, runs, BY_NAME["loss"])
    one, two = axes.get_lines()
    assert one.get_ydata().tolist() == history(1.0)["loss"].tolist()
    assert two.get_ydata().tolist() == history(2.0)["loss"].tolist()
    assert (one.get_color(), two.get_color()) == drawing.SERIES[:2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["low", "old"]
    assert "low 2.500, old 5.000" in figure.alt


def test_evaluations_are_dots_on_the_line_of_their_run(saes: tuple[str, str]) -> None:
    axes, _ = axes_of(curves_figure, read_trained(saes[0]), BY_NAME["dead_fraction"])
    line, dots = axes.get_lines()
    assert (line.get_marker(), dots.get_marker()) == ("None", "o")
    assert dots.get_ydata().tolist() == [25.0] * 3
    assert axes.get_ylim()[0] == 0


def test_both_ablations_of_the_ce_score_are_drawn(saes: tuple[str, str]) -> None:
    axes, _ = axes_of(curves_figure, read_trained(saes[0]), BY_NAME["ce_score"])
    assert [line.get_ydata().tolist() for line in axes.get_lines()] == [
        evaluation()["ce_score_zero"].tolist(),
        evaluation()["ce_score_mean"].tolist(),
    ]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["against zeros", "against the mean"]


def run_of(values: Any, tokens: Any = None, name: str = "loss", label: str = "x") -> RunHistory:
    tokens = np.arange(1.0, len(values) + 1) if tokens is None else tokens
    return RunHistory(label, "", pd.DataFrame({"tokens": tokens, name: values}), NONE)


def test_a_loss_that_spans_much_has_a_logarithmic_axis_and_another_has_not() -> None:
    for top, scale in ((100.0, "log"), (2.0, "linear")):
        axes, _ = axes_of(curves_figure, [run_of(np.linspace(top, 1, 50))], BY_NAME["loss"])
        assert axes.get_yscale() == scale
    axes, _ = axes_of(curves_figure, [run_of(np.linspace(100, -1, 50))], BY_NAME["loss"])
    assert axes.get_yscale() == "linear"


def test_a_start_from_afar_does_not_press_the_rest_flat() -> None:
    values = np.concatenate([[-50.0, -3.0], np.linspace(0.5, 0.8, 98)])
    axes, _ = axes_of(curves_figure, [run_of(values, name="explained_variance")], BY_NAME["explained_variance"])
    low, high = axes.get_ylim()
    assert 0.4 < low < 0.5
    assert 0.8 < high < 1.0


def test_no_value_after_the_start_lies_outside_the_frame() -> None:
    for graph in GRAPHS:
        name = graph.series[0].measure
        table = pd.DataFrame({"tokens": np.arange(1.0, 101), name: np.linspace(0.2, 1.2, 100)})
        axes, _ = axes_of(curves_figure, [RunHistory("x", "", table, table)], graph)
        assert axes.get_ylim()[1] >= 1.2 * graph.axis.scale, graph.name


def test_runs_of_very_different_length_share_a_logarithmic_axis() -> None:
    values = np.linspace(2, 1, 50)
    for longest, scale in ((5_000.0, "log"), (100.0, "linear")):
        runs = [run_of(values), run_of(values, np.linspace(1, longest, 50), label="y")]
        axes, _ = axes_of(curves_figure, runs, BY_NAME["loss"])
        assert axes.get_xscale() == scale


def test_more_runs_than_colours_differ_in_line_and_mark() -> None:
    size = 2 * len(drawing.SERIES)
    tables = [pd.DataFrame({"tokens": [1.0, 2.0], "l0": [float(i), i + 0.5]}) for i in range(1, size + 1)]
    axes, _ = axes_of(curves_figure, [RunHistory(f"r{i}", "", table, table) for i, table in enumerate(tables)], BY_NAME["l0"])
    looks = [
        (line.get_color(), str(line.get_linestyle()), line._unscaled_dash_pattern, line.get_marker()) for line in axes.get_lines()
    ]
    assert len({repr(look) for look in looks}) == 2 * size


def test_a_long_curve_is_thinned_by_means_and_keeps_its_end() -> None:
    values = np.tile([0.0, 2.0], 5000)
    found = thin(pd.DataFrame({"tokens": np.arange(10_000.0), "value": values}))
    assert len(found) <= POINTS
    assert found["value"].iloc[:-2].tolist() == pytest.approx([1.0] * (len(found) - 2), abs=0.05)
    assert found.iloc[-1].tolist() == [9999.0, 2.0]
    short = pd.DataFrame({"tokens": [1.0], "value": [5.0]})
    assert thin(short).equals(short)


def test_an_evaluation_of_one_row_is_drawn() -> None:
    table = pd.DataFrame({"tokens": [5.0], "ce_score_zero": [0.7]})
    axes, _ = axes_of(curves_figure, [RunHistory("x", "", pd.DataFrame({"tokens": [5.0]}), table)], BY_NAME["ce_score"])
    low, high = axes.get_ylim()
    assert low < 0.7 < high


def test_densities_of_different_bins_can_be_compared() -> None:
    fine = Density(np.linspace(-4, 0, 41), np.full(40, 5.0), 400)
    coarse = Density(np.linspace(-4, 0, 5), np.full(4, 50.0), 400)
    axes, _ = axes_of(density_figure, [RunHistory("a", "", NONE, NONE, fine), RunHistory("b", "", NONE, NONE, coarse)])
    heights = [patch.get_data().values for patch in axes.patches]
    assert heights[0] == pytest.approx(12.5)
    assert heights[1] == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (tokens_text(0), "0"),
        (tokens_text(250_000), "250k"),
        (tokens_text(1_500_000), "1.5M"),
        (tokens_text(2e9), "2B"),
        (rate_text(0), "0"),
        (rate_text(3e-4), "3e−4"),
        (rate_text(1.0), "1e0"),
        (power_text(-3), "10⁻³"),
        (name_text("a_b"), "a_b"),
        (name_text("costs $5, $6"), r"costs \$5, \$6"),
        (name_text("x" * 50), "x" * 39 + "…"),
    ],
)
def test_axes_are_labelled_in_few_letters(text: str, shown: str) -> None:
    assert text == shown


def test_variants_are_runs_of_their_own(tmp_path: Path) -> None:
    variants = [{"name": "wide", "k": None, "d_sae": 64}, {"name": "few", "k": 4, "d_sae": None}]

    def write(out: Path) -> None:
        for place, folder in enumerate((out, out / "variants" / "wide", out / "variants" / "few")):
            fill(folder, 1.0 + place)

    sae = write_artifact(tmp_path / "sae", "train-sae", write, {"d_sae": 8, "k": 16, "variants": variants})
    runs = read_trained(str(sae))
    assert [found.label for found in runs] == ["sae", "sae wide", "sae few"]
    assert [found.last("loss")[0] for found in runs] == [2.5, 5.0, 7.5]
    assert dict(settings_that_differ(runs)) == {"d_sae": [8, 64, 8], "k": [16, 16, 4]}


def test_only_settings_that_all_runs_have_are_compared(saes: tuple[str, str]) -> None:
    runs = [found for sae in saes for found in read_trained(sae)]
    assert dict(settings_that_differ(runs)) == {"path": ["low", "old"], "k": [16, 32]}


def test_runs_of_the_same_name_are_numbered_and_labels_are_checked(saes: tuple[str, str]) -> None:
    runs = [found for sae in (saes[0], saes[0], saes[1]) for found in read_trained(sae)]
    assert [one.label for one in graphs.name_runs(runs, ())] == ["low (1)", "low (2)", "old"]
    assert [one.label for one in graphs.name_runs(runs, ("a", "b", "c"))] == ["a", "b", "c"]
    with pytest.raises(PlaypenError, match=r"2 labels for 3 runs \(low, low, old\)"):
        graphs.name_runs(runs, ("a", "b"))
    with pytest.raises(PlaypenError, match="names two runs alike"):
        graphs.name_runs(runs, ("a", "a", "b"))


@pytest.mark.parametrize(("kind", "more"), [("load-sae", "has no history"), ("classify", "expected one of train-sae")])
def test_an_artifact_of_another_stage_is_refused_in_one_line(kind: str, more: str, tmp_path: Path) -> None:
    other = write_artifact(tmp_path / "other", kind, lambda out: write_json(out / "metrics.json", {}))
    with pytest.raises(PlaypenError, match=f"is an artifact of {kind}.*{more}") as error:
        make(tmp_path / "graphs", saes=(str(other),))
    assert "\n" not in str(error.value)


def test_no_run_at_all_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["graphs"])
    assert capsys.readouterr().err == "playpen: graphs: no run is named; give saes, wandb or wandb_offline\n"


# W&B


WIDTH = 64
CONFIG = {"sae": {"d_sae": WIDTH}}
SAELENS_ROWS = [
    {
        "_step": 10 * x - 1,
        "losses/overall_loss": 100 / x,
        "metrics/l0": 16.0,
        "metrics/explained_variance": 1 - 1 / x,
        "sparsity/dead_features": x,
        "details/current_learning_rate": 3e-4,
        "details/n_training_samples": 10_000 * x,
    }
    for x in range(1, 21)
]
"""What SAELens logs on its training steps."""
SAELENS_EVALUATION = {"model_performance_preservation": {"ce_loss_score": 0.875}, "sparsity": {"l0": 15.5}}
EDGES = [-10.0, -9.0, -8.0, -2.0, -1.0, 0.0]
COUNTS = [16, 0, 12, 24, 12]
"""A quarter of the features stand at SAELens' floor of -10: they never fired."""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an offline run of W&B as SAELens would."""
    import wandb

    root = tmp_path_factory.mktemp("wandb")
    quiet = wandb.Settings(console="off", silent=True)
    with wandb.init(project="p", name="theirs", dir=root, mode="offline", config=CONFIG, settings=quiet) as run:
        for row in SAELENS_ROWS:
            run.log({name: value for name, value in row.items() if name != "_step"}, step=row["_step"])
        run.log(SAELENS_EVALUATION, step=199)
        density = wandb.Histogram(np_histogram=(np.array(COUNTS), np.array(EDGES)))
        run.log({"plots/feature_density_line_chart": density, "metrics/mean_log10_feature_sparsity": -3.0}, step=205)
    (found,) = root.glob("wandb/offline-run-*")
    return found


def check_saelens(found: RunHistory) -> None:
    """Raise unless a history is that of `SAELENS_ROWS`."""
    assert found.label == "theirs"
    assert found.curve("loss")["value"].tolist() == [100 / x for x in range(1, 21)]
    assert found.curve("loss")["tokens"].tolist() == [10_000 * x for x in range(1, 21)]
    assert found.curve("dead_fraction")["value"].tolist() == [x / WIDTH for x in range(1, 21)]
    assert found.curve("lr")["value"].tolist() == [3e-4] * 20
    assert found.last("ce_score_zero") == (0.875, True)
    assert found.last("l0") == (15.5, True)
    assert found.curve("ce_score_zero", True)["tokens"].tolist() == [200_000]
    assert found.density is not None
    assert (found.density.never, found.density.counts.sum()) == (0.25, 48)


def test_an_offline_run_of_saelens_is_read_from_its_directory(offline: Path) -> None:
    check_saelens(read_offline(str(offline)))


def test_a_run_of_wandb_stands_beside_one_of_ours(offline: Path, saes: tuple[str, str]) -> None:
    file = str(next(offline.glob("*.wandb")))
    runs = graphs.read_runs(graphs.Config(saes=saes[:1], wandb_offline=(file,), labels=("mine", "SAELens")))
    found = graphs.numbers(runs)["SAELens"]["final"]
    assert found["ce_score_zero"] == {"value": 0.875, "evaluated": True}
    assert found["explained_variance"] == {"value": 0.95, "evaluated": False}
    rows = [[cell.text for cell in row] for row in graphs.final_table(runs).rows]
    assert rows[0] == ["mine", "40,000", "2.500", "14.5", "0.123", "25.00", "0.875", "0.775"]
    assert rows[1] == ["SAELens", "200,000", "5.000", "15.5", "0.950*", "31.25*", "0.875", "–"]


def test_the_file_of_a_killed_run_is_read_up_to_its_end(offline: Path, tmp_path: Path) -> None:
    whole = next(offline.glob("*.wandb")).read_bytes()
    cut = tmp_path / "run-cut.wandb"
    cut.write_bytes(whole[: 2 * len(whole) // 3])
    found = read_offline(str(cut)).curve("loss")["value"].tolist()
    assert 0 < len(found) < 20
    assert found == [100 / x for x in range(1, len(found) + 1)]


def test_damaged_and_foreign_files_are_refused_in_one_line(offline: Path, tmp_path: Path) -> None:
    whole = bytearray(next(offline.glob("*.wandb")).read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 40] = b"x" * 40
    for name, data, message in (("damaged", bytes(whole), "is damaged"), ("other", b"hello\n", "holds no history")):
        (tmp_path / f"{name}.wandb").write_bytes(data)
        with pytest.raises(PlaypenError, match=message) as error:
            read_offline(str(tmp_path / f"{name}.wandb"))
        assert "\n" not in str(error.value)


def test_a_directory_that_is_no_run_is_refused_with_the_runs_in_it(offline: Path, tmp_path: Path) -> None:
    with pytest.raises(PlaypenError, match=rf"holds 0 \.wandb files.*there are {offline}"):
        read_offline(str(offline.parent))
    with pytest.raises(PlaypenError, match=r"holds 0 \.wandb files"):
        read_offline(str(tmp_path))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(PlaypenError, match=r"is no \.wandb file"):
        read_offline(str(tmp_path / "notes.txt"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with wandb_server(monkeypatch, tmp_path) as made:
        yield made


def test_a_run_is_read_from_the_server_as_from_its_file(server: Server) -> None:
    density = {"_type": "histogram", "bins": EDGES, "values": COUNTS}
    last = {**SAELENS_ROWS[-1], **SAELENS_EVALUATION}
    server.rows = (*SAELENS_ROWS[:-1], last, {"_step": 205, "plots/feature_density_line_chart": density})
    server.run = run_record("finished", "theirs", CONFIG, 205)
    check_saelens(read_online("me/saes/c"))


def test_a_run_that_is_not_there_or_not_done_is_refused_in_one_line(server: Server) -> None:
    for record, message in ((None, "Could not find run"), (run_record("running", "theirs", CONFIG, 205), "still running")):
        server.run = record
        with pytest.raises(PlaypenError, match=f"W&B run me/saes/c cannot be read: .*{message}") as error:
            read_online("me/saes/c")
        assert "\n" not in str(error.value)


def test_a_dead_network_and_a_wrong_path_are_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    server.shutdown()
    server.server_close()
    with pytest.raises(PlaypenError, match=r"W&B run me/saes/c cannot be read: .*is the path right, the network up"):
        read_online("me/saes/c")
    for path in ("saes/c", "me/saes/runs/c", "https://host/me/saes"):
        with pytest.raises(PlaypenError, match=f"named by entity/project/run, found '{path}'"):
            read_online(path)


def test_saelens_still_logs_the_keys_that_are_looked_for() -> None:
    spec = find_spec("sae_lens")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent
    code = "".join((home / file).read_text() for file in ("training/sae_trainer.py", "evals.py"))
    groups = [keys[1] for name, keys in TRAINING_KEYS.items() if len(keys) > 1] + [TRAINING_KEYS["dead_features"][0]]
    for key in (*groups, TOKENS[1], DENSITY_KEYS[1]):
        assert f'"{key}"' in code, key
    for key in (EVALUATION_KEYS["ce_score_zero"][1], EVALUATION_KEYS["l0"][1]):
        group, name = key.split("/")
        assert f'all_metrics["{group}"]' in code, key
        assert f'"{name}":' in code, key


SAELENS_TRAINING = """
import sys
from datasets import Dataset
from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig, TopKTrainingSAEConfig
from transformer_lens import HookedTransformer, HookedTransformerConfig

shape = {"n_layers": 1, "d_model": 16, "n_ctx": 16, "d_head": 8, "n_heads": 2, "d_vocab": 50}
model = HookedTransformer(HookedTransformerConfig(**shape, act_fn="gelu", device="cpu", seed=0))
data = Dataset.from_dict({"input_ids": [[(7 * i + j * j) % 50 for j in range(16)] for i in range(400)]})
logger = LoggingConfig(wandb_project="p", wandb_log_frequency=2, eval_every_n_wandb_logs=25, log_weights_to_wandb=False)
sizes = {"context_size": 16, "training_tokens": 12800, "train_batch_size_tokens": 64, "n_batches_in_buffer": 16}
sizes |= {"store_batch_size_prompts": 8, "feature_sampling_window": 50, "dead_feature_window": 20, "n_eval_batches": 1}
config = LanguageModelSAERunnerConfig(
    sae=TopKTrainingSAEConfig(d_in=16, d_sae=64, k=4), model_name="tiny", hook_name="blocks.0.hook_resid_post", dataset_path="none",
    is_dataset_tokenized=True, prepend_bos=False, device="cpu", logger=logger, checkpoint_path=None, output_path=None, **sizes,
)
LanguageModelSAETrainingRunner(config, override_dataset=data, override_model=model).run()
"""


@pytest.mark.slow
def test_a_real_training_of_saelens_gives_every_graph(tmp_path: Path) -> None:
    where = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    subprocess.run([sys.executable, "-c", SAELENS_TRAINING], env={**os.environ, **where}, check=True, capture_output=True)
    (offline,) = tmp_path.glob("wandb/offline-run-*")
    out = make(tmp_path / "graphs", wandb_offline=(str(offline),))
    found = json.loads((out / "metrics.json").read_text())
    assert sorted(found["graphs"]) == ALL
    (numbers,) = found["runs"].values()
    assert numbers["tokens"] == 12800
    assert numbers["final"]["l0"] == {"value": 4.0, "evaluated": True}
    assert 0 < numbers["final"]["explained_variance"]["value"] < 1
