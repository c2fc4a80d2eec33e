"""The stage explore: its data files hold what the tables hold, and truth is read to be shown, by this stage alone."""

from pathlib import Path
from typing import Any

import explore_world
import numpy as np
import pytest
from explore_world import FEATURES, KEPT, NASTY, ROWS, SHOWN, WORDS, make_rows, values_of, write_world

from playpen import tables
from playpen.config import PlaypenError
from playpen.dashboard_data.scripts import read_packed
from playpen.machine import Machine
from playpen.stage import run_stage
from playpen.stages import explore
from playpen.tables import read_metrics

CPU = Machine(device="cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("explore"))


def read(made: Path, name: str) -> Any:
    return read_packed(made / "data" / name)


def config(home: Path, **changes: object) -> explore.Config:
    names = {"explanation": str(home / "explanation"), "data": str(home / "data"), "scores": str(home / "scores")}
    selections = {"one": str(home / "first"), "other": str(home / "second")}
    return explore.Config(**{**names, "selections": selections, **changes})


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    run_stage("explore", config(home), out, CPU)
    return out


def test_the_list_holds_every_row_with_those_laid_out_first(made: Path) -> None:
    rows, found = make_rows(), read(made, "list.js")
    assert found["row_id"] == rows["row_id"].tolist()
    assert found["shown"] == [1] * SHOWN + [0] * (ROWS - SHOWN)
    np.testing.assert_allclose(found["predicted"], rows["log_odds"], atol=1e-5)
    np.testing.assert_allclose(found["true"], rows["true"])
    assert found["fault"] == rows["fault"].tolist()
    assert sum(found["kept"]["one"]) == KEPT
    assert found["kept"]["other"] == [int(i % 3 == 0) for i in range(ROWS)]


def test_features_name_the_rows_that_they_moved_and_link_from_this_page(home: Path, made: Path) -> None:
    found = read(made, "features.js")
    assert found["id"] == list(FEATURES)
    assert found["rows"][0] == list(range(0, ROWS, 2))
    assert set(found["values"][1]) == {-0.8}
    np.testing.assert_allclose(found["values"][2], [values_of(i)[5] for i in range(ROWS)], atol=1e-5)
    target = (made / found["dashboard"][0].split("#")[0]).resolve()
    assert target == (home / "features-01234567" / "index.html").resolve()
    assert found["neuronpedia"] == [None, "https://www.neuronpedia.org/m/1-x/4", None]


def test_a_chat_holds_its_tokens_their_values_and_where_each_feature_fires(made: Path) -> None:
    chat = read(made, "shard-00000.js")[6]
    assert chat["t"] == WORDS
    np.testing.assert_allclose(chat["v"], [0, 0, 0, 0, -0.4, 0.75 - 0.4 + 0.13, 0.75 + 0.13], atol=1e-9)
    assert chat["f"] == [
        [3, 1.5, 2.0, [[5, 0.75], [6, 0.75]]],
        [4, -0.8, 2.0, [[5, -0.4], [4, -0.4]]],
        [5, 0.26, 2.0, [[5, 0.13], [6, 0.13]]],
    ]
    row = make_rows()["row_id"][6]
    assert chat["why"] == {"one": f"first says so of {row}", "other": f"second says so of {row}"}
    assert len(read(made, "shard-00001.js")) == SHOWN - explore.SHARD_ROWS


def test_two_selections_are_compared_over_all_rows_by_counts_means_and_features(made: Path) -> None:
    rows, (pair,) = make_rows(), read_metrics(made)["pairs"]
    one, other = rows["kept"].to_numpy(), np.arange(ROWS) % 3 == 0
    masks = {"both": one & other, "first": one & ~other, "second": ~one & other, "neither": ~one & ~other}
    for name, mask in masks.items():
        part = pair["parts"][name]
        assert part["rows"] == mask.sum()
        assert part["tokens"] == 7 * mask.sum()
        np.testing.assert_allclose(part["log_odds"], rows.loc[mask, "log_odds"].mean())
        np.testing.assert_allclose(part["true"], rows.loc[mask, "true"].mean())
        assert part["sources"] == rows.loc[mask, "source"].value_counts().to_dict()
    differences = {feature: a - b for feature, a, b in pair["features"]}
    assert abs(differences[pair["features"][0][0]]) == max(map(abs, differences.values()))
    gap = rows.loc[masks["first"], "log_odds"].mean() - rows.loc[masks["second"], "log_odds"].mean()
    np.testing.assert_allclose(sum(differences.values()), gap)


def test_a_large_pool_is_drawn_in_part_but_counted_whole_and_the_same_seed_draws_the_same(home: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        run_stage("explore", config(home, points=70, seed=seed), tmp_path / name, CPU)
    lists = [read(tmp_path / name, "list.js")["row_id"] for name in "abc"]
    assert len(lists[0]) == 70
    assert lists[0] == lists[1] != lists[2]
    assert lists[0][:SHOWN] == make_rows()["row_id"].tolist()[:SHOWN]
    features = read(tmp_path / "a", "features.js")
    assert features["rows"][2] == list(range(70))
    assert sum(part["rows"] for part in read_metrics(tmp_path / "a")["pairs"][0]["parts"].values()) == ROWS


def test_without_scores_and_truth_the_page_does_without_them(tmp_path: Path) -> None:
    home = write_world(tmp_path / "world")
    (home / "data" / "truth.parquet").unlink()
    (tmp_path / "out").mkdir()
    run_stage("explore", config(home, scores=None), tmp_path / "out", CPU)
    assert not {"true", "fault"} & set(read(tmp_path / "out", "list.js"))
    assert '"faults":null' in (tmp_path / "out/data/meta.js").read_text()


def test_truth_is_read_by_the_stage_that_shows_it_and_by_no_other(home: Path, tmp_path: Path) -> None:
    with pytest.raises(PlaypenError, match="only validate, report and explore may read it"):
        explore.run(config(home), tmp_path, CPU)
    assert tables.MAY_READ_TRUTH == ("validate", "report", "explore")


def test_what_a_token_holds_cannot_end_a_script(made: Path) -> None:
    for file in (made / "data").iterdir():
        assert NASTY not in file.read_text(), file


def test_selections_and_scores_of_other_rows_are_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore_world, "ROWS", 40)
    monkeypatch.setattr(explore_world, "SHOWN", 20)
    small = write_world(tmp_path / "small")
    for changes in (
        {"scores": str(small / "scores")},
        {"selections": {"x": str(small / "first")}},
        {"data": str(small / "data")},
    ):
        with pytest.raises(PlaypenError, match="80 of 120 rows have no partner"):
            run_stage("explore", config(home, **changes), tmp_path, CPU)
