"""Contributions: they sum to the prediction, a planted feature gets them, and each kind equals an independent computation."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from planted import FEATURES, QUICK, WIDTH, as_table, planted, top_quarter

from playpen.config import PlaypenError
from playpen.contributions import EXPLAINED, check_explained, explain
from playpen.feature_table import Features
from playpen.pooled_classifier import Network
from playpen.saved_classifier import SavedClassifier

ROWS = 300
KINDS = [name for name in QUICK if name in EXPLAINED]
POOLED = ["mean_pooling", "attention_pooling"]


@cache
def fitted(name: str, k: int | None = None, **settings: Any) -> tuple[SavedClassifier, Features]:
    """Return a classifier fitted on planted rows, as it is when saved, and those rows; the statistics know the score."""
    features, score = planted(ROWS)
    features = replace(features, stats=np.column_stack([features.stats[:, :9], score]).astype(np.float32))
    config = replace(QUICK[name], **{**({"epochs": 12, "members": 2} if name in POOLED else {}), **settings})
    seen = features.strongest(k) if k else features
    seen = seen if name == "statistics" else replace(seen, stats=seen.stats[:, :0])
    arrays = config.fit(seen, top_quarter(score), np.arange(ROWS).astype(str), 0)
    info = {"model": name, "k": k, "fingerprint": {"num_features": FEATURES, "k": WIDTH}}
    return SavedClassifier(info, config, arrays), features


def log_odds(prediction: np.ndarray) -> np.ndarray:
    exact = prediction.astype(np.float64)
    return np.log(exact) - np.log1p(-exact)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("k", [None, 5])
def test_baseline_and_contributions_sum_to_the_log_odds_of_the_prediction(name: str, k: int | None) -> None:
    classifier, features = fitted(name, k)
    prediction = classifier.predict(as_table(features))
    told = prediction < 0.99  # above it float32 cannot hold 1e-5 of log-odds
    found = explain(classifier, as_table(features))
    assert told.sum() > ROWS / 2
    assert np.ptp(log_odds(prediction[told])) > 0.1
    np.testing.assert_allclose(found.log_odds[told], log_odds(prediction[told]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["l1", *POOLED])
def test_the_baseline_is_the_prediction_for_an_example_without_features(name: str) -> None:
    classifier, features = fitted(name)
    empty = replace(features.rows(np.arange(1)), ids=np.full((1, WIDTH), FEATURES), strength=np.zeros((1, WIDTH), np.float32))
    found = explain(classifier, as_table(empty))
    assert not found.value.any()
    np.testing.assert_allclose(found.baseline, log_odds(classifier.predict(as_table(empty)))[0], atol=1e-5)


@pytest.mark.parametrize("name", ["l1", *POOLED])
def test_the_features_that_alone_decide_the_label_get_the_contributions(name: str) -> None:
    classifier, features = fitted(name)
    found = explain(classifier, as_table(features))
    mean = np.array([found.value[features.ids == feature].mean() for feature in range(FEATURES)])
    assert set(np.argsort(-np.abs(mean))[:2]) == {3, 7}
    assert mean[3] > 0
    assert mean[7] > 0
    assert min(mean[3], mean[7]) > 2 * np.sort(np.abs(mean))[-3]


def test_the_statistic_that_knows_the_score_gets_the_contribution() -> None:
    classifier, features = fitted("statistics")
    found = explain(classifier, as_table(features))
    assert np.abs(found.value).mean(0).argmax() == 9
    assert found.ids[0].tolist() == list(range(10))


def test_removing_a_feature_changes_a_linear_prediction_by_exactly_its_contribution() -> None:
    classifier, features = fitted("l1")
    found = explain(classifier, as_table(features))
    row, place = np.argwhere(features.ids == 3)[0]
    assert found.value[row, place] > 0.1
    without = features.rows(np.array([row]))
    without = replace(without, ids=np.delete(without.ids, place, 1), strength=np.delete(without.strength, place, 1))
    before, after = (log_odds(classifier.predict(as_table(one))) for one in (features.rows(np.array([row])), without))
    np.testing.assert_allclose(before - after, found.value[row, place], atol=1e-5)


@pytest.mark.parametrize("name", POOLED)
def test_integrated_gradients_equal_a_fine_sum_of_gradients_of_the_network_itself(name: str) -> None:
    classifier, features = fitted(name)
    few, steps = features.rows(np.arange(4)), 300
    vocabulary = list(classifier.arrays["vocabulary"])
    places = torch.tensor([[vocabulary.index(i) if i in vocabulary else len(vocabulary) for i in row] for row in few.ids])
    damped = torch.from_numpy(np.log1p(few.strength / classifier.arrays["unit"]).astype(np.float64))
    damped = torch.where(places < len(vocabulary), damped, 0.0)
    networks = []
    for member in range(2):
        network = Network(classifier.config, len(vocabulary), torch.Generator()).double().eval()
        state = {key: torch.as_tensor(classifier.arrays[key][member]) for key in network.state_dict()}
        network.load_state_dict(state)
        networks.append(network)
    total = torch.zeros_like(damped)
    for step in range(steps):
        at = ((step + 0.5) / steps * damped).requires_grad_()
        probability = torch.stack([torch.sigmoid(network(places, at)) for network in networks]).mean(0)
        total += torch.autograd.grad(torch.logit(probability).sum(), at)[0] / steps
    found = explain(classifier, as_table(few)).value
    assert np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, (damped * total).numpy(), atol=2e-5)


def test_a_linear_mean_pooling_has_the_closed_form_of_a_linear_model() -> None:
    classifier, features = fitted("mean_pooling", hidden=0, members=1)
    a, found = {key: value[0] for key, value in classifier.arrays.items()}, explain(classifier, as_table(features))
    direction = a["out_weight"][0] / np.sqrt(a["norm.running_var"] + 1e-5)
    weight = np.zeros(FEATURES)
    weight[classifier.arrays["vocabulary"]] = (a["embedding"] @ direction)[:-1]
    damped = np.log1p(features.strength / classifier.arrays["unit"])
    expected = damped * weight[features.ids] / np.isin(features.ids, classifier.arrays["vocabulary"]).sum(1, keepdims=True)
    np.testing.assert_allclose(found.value, expected, atol=1e-6)


def test_what_the_classifier_does_not_see_has_no_contribution() -> None:
    classifier, features = fitted("l1", 5)
    assert explain(classifier, as_table(features)).value.shape == (ROWS, 5)
    alone = {**classifier.arrays, "vocabulary": np.array([3]), "weight": np.array([2.0])}
    found = explain(replace(classifier, arrays=alone), as_table(features))
    np.testing.assert_array_equal(found.value != 0, features.ids[:, :5] == 3)


def test_a_classifier_without_contributions_or_without_weights_is_refused() -> None:
    classifier, _ = fitted("l1")
    with pytest.raises(PlaypenError, match="runs/x is a classifier of kind 'forest', whose predictions have no contributions"):
        check_explained(replace(classifier, info={**classifier.info, "model": "forest"}), "runs/x")
    with pytest.raises(PlaypenError, match="runs/x gives no feature any weight"):
        check_explained(replace(classifier, arrays={**classifier.arrays, "weight": np.zeros(3)}), "runs/x")
