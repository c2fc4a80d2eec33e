"""Over-representation: counts, odds and their intervals equal a library's, and a confounded feature is told by its strata."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from playpen.over_representation import Tally, compare_features, tally
from playpen.tables import write_table

ROWS = 600
KIND, OF_SOURCE, EVERYWHERE = 2, 5, 9


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Rows of two sources, of which one is kept far more often."""
    draw = np.random.default_rng(0)
    source = np.array(["a", "b"])[(draw.random(ROWS) < 0.5).astype(int)]
    kept = draw.random(ROWS) < np.where(source == "a", 0.7, 0.1)
    return pd.DataFrame({"row_id": [f"r{i:03}" for i in range(ROWS)], "kept": kept, "stratum": source})


@pytest.fixture(scope="module")
def entries(rows: pd.DataFrame) -> pd.DataFrame:
    """One feature of kept rows, one of the rows of source a, one of all rows, and noise."""
    draw, found = np.random.default_rng(1), []
    chances = {
        KIND: np.where(rows["kept"], 0.8, 0.2),
        OF_SOURCE: np.where(rows["stratum"] == "a", 0.8, 0.2),
        EVERYWHERE: np.ones(ROWS),
        11: np.full(ROWS, 0.3),
    }
    for feature, chance in chances.items():
        have = rows.loc[draw.random(ROWS) < chance, "row_id"]
        found.append(pd.DataFrame({"row_id": have, "feature": feature, "contribution": draw.normal(feature / 10, 1, len(have))}))
    return pd.concat(found).sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def counted(rows: pd.DataFrame, entries: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Tally:
    out: Path = tmp_path_factory.mktemp("tally")
    for i, part in enumerate((entries[:700], entries[700:])):
        write_table(out / "contributions" / f"shard-0000{i}.parquet", part)
    return tally(out, rows)


def test_counts_and_sums_are_those_of_a_group_by(rows: pd.DataFrame, entries: pd.DataFrame, counted: Tally) -> None:
    both = entries.merge(rows, on="row_id")
    assert counted.features.tolist() == [KIND, OF_SOURCE, EVERYWHERE, 11]
    for i, feature in enumerate(counted.features):
        for j, stratum in enumerate("ab"):
            mine = both[(both["feature"] == feature) & (both["stratum"] == stratum)]
            assert (counted.kept[j, i], counted.rejected[j, i]) == (mine["kept"].sum(), (~mine["kept"]).sum())
        kept = both[(both["feature"] == feature) & both["kept"]]
        np.testing.assert_allclose(counted.kept_sum[i], kept["contribution"].sum())
    assert counted.kept_rows.sum() + counted.rejected_rows.sum() == ROWS


def test_odds_within_strata_and_their_interval_equal_those_of_statsmodels(counted: Tally) -> None:
    from statsmodels.stats.contingency_tables import StratifiedTable

    table = compare_features(counted).set_index("feature")
    for i, feature in enumerate(counted.features):
        if feature == EVERYWHERE:
            continue
        a, b = counted.kept[:, i], counted.rejected[:, i]
        cells = np.array([[a, b], [counted.kept_rows - a, counted.rejected_rows - b]], float)
        theirs, mine = StratifiedTable(cells), table.loc[feature]
        np.testing.assert_allclose(mine["log_odds_within"], theirs.logodds_pooled, rtol=1e-9)
        bounds = mine[["log_odds_within_low", "log_odds_within_high"]]
        np.testing.assert_allclose(bounds, theirs.logodds_pooled_confint(), rtol=1e-9)


def test_smoothed_odds_and_their_interval_have_their_closed_form() -> None:
    counts = {"kept": np.array([[7]]), "rejected": np.array([[3]]), "kept_rows": np.array([20]), "rejected_rows": np.array([60])}
    found = compare_features(Tally(np.array([4]), **counts, kept_sum=np.array([10.0]), rejected_sum=np.array([-6.0]))).iloc[0]
    error = (1 / 7.5 + 1 / 3.5 + 1 / 13.5 + 1 / 57.5) ** 0.5
    log_odds = np.log(7.5 * 57.5 / (3.5 * 13.5))
    expected = [7 / 20, 10 / 80, log_odds, log_odds - 1.96 * error, log_odds + 1.96 * error, 0.5, -0.1, 0.6]
    names = ["kept_share", "offered_share", "log_odds", "log_odds_low", "log_odds_high", "kept_mean", "rejected_mean", "gap"]
    np.testing.assert_allclose(found[names].astype(float), expected, rtol=1e-4)
    np.testing.assert_allclose(found["q"], 2 * norm.sf(log_odds / error), rtol=1e-6)


def test_a_feature_of_the_kept_is_found_and_one_of_their_source_is_told_apart_within_sources(counted: Tally) -> None:
    table = compare_features(counted).set_index("feature")
    assert table.loc[KIND, "log_odds_low"] > 1
    assert table.loc[KIND, "log_odds_within_low"] > 1
    assert table.loc[OF_SOURCE, "log_odds_low"] > 0.5
    assert table.loc[OF_SOURCE, "log_odds_within_low"] < 0 < table.loc[OF_SOURCE, "log_odds_within_high"]
    assert table.loc[11, "log_odds_low"] < 0 < table.loc[11, "log_odds_high"]
    assert table.loc[KIND, "q"] < 1e-6 < table.loc[11, "q"]


def test_a_feature_of_all_rows_tells_nothing_by_its_presence(counted: Tally) -> None:
    found = compare_features(counted).set_index("feature").loc[EVERYWHERE]
    assert found[["log_odds", "log_odds_low", "log_odds_within", "q"]].isna().all()
    assert found["kept_share"] == found["offered_share"] == 1


def test_gaps_sum_to_the_difference_of_the_mean_predictions_and_the_widest_comes_first(
    rows: pd.DataFrame, entries: pd.DataFrame, counted: Tally
) -> None:
    table = compare_features(counted)
    total = entries.groupby("row_id")["contribution"].sum().reindex(rows["row_id"], fill_value=0).to_numpy()
    kept = rows["kept"].to_numpy()
    np.testing.assert_allclose(table["gap"].sum(), total[kept].mean() - total[~kept].mean())
    assert table["gap"].abs().is_monotonic_decreasing
