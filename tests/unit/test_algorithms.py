"""The catalogue: what each algorithm takes, and what it says of what it does not take."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sklearn.multiclass import OneVsRestClassifier

from pipeline import algorithms
from pipeline.algorithms import Algorithm, catalogue, find
from pipeline.algorithms.declared import DECLARED
from pipeline.algorithms.scikit_learn import of_entry
from pipeline.errors import RejectedError

ALL = list(catalogue().values())


@pytest.fixture(params=ALL, ids=lambda algorithm: algorithm.name)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    found: Algorithm = request.param
    return found


def rejection(algorithm: str, hyperparameters: dict[str, Any], seed: int = 1) -> str:
    with pytest.raises(RejectedError) as rejected:
        find(algorithm).resolve(hyperparameters, seed)
    return str(rejected.value)


def test_the_catalogue_holds_the_algorithms_of_the_replaced_worker() -> None:
    assert {"random_forest", "logistic_regression", "svm", "decision_tree"} <= set(catalogue())
    assert list(catalogue()) == sorted(catalogue())


def test_an_unknown_algorithm_is_rejected_with_the_near_and_all_names() -> None:
    with pytest.raises(
        RejectedError,
        match=r"no algorithm 'random_forrest'; did you mean random_forest or random_forest_regressor\?.*svm",
    ):
        find("random_forrest")


def test_defaults_are_those_of_the_estimator(algorithm: Algorithm) -> None:
    built = algorithm.build(algorithm.resolve({}, 7))
    built = getattr(built, "regressor", built).get_params(deep=False)
    stock = algorithm.estimator().get_params(deep=False)
    assert built == {**stock, **({"random_state": 7} if algorithm.seeded else {})}


def test_what_is_declared_without_an_estimator_is_what_the_estimator_declares(algorithm: Algorithm) -> None:
    assert list(DECLARED[algorithm.name]) == of_entry(algorithm), "run python -m pipeline.algorithms.scikit_learn"


def test_every_default_is_a_value_that_the_hyperparameter_takes(algorithm: Algorithm) -> None:
    for parameter in algorithm.hyperparameters.values():
        assert parameter.read(parameter.default) == parameter.default


def test_what_is_resolved_resolves_to_itself_after_a_way_through_json(algorithm: Algorithm) -> None:
    resolved = algorithm.resolve({}, 7)
    assert algorithm.resolve(orjson.loads(orjson.dumps(resolved)), 0) == resolved


def test_every_hyperparameter_refuses_what_is_no_value_of_any_kind(algorithm: Algorithm) -> None:
    for name in algorithm.hyperparameters:
        for value in ("no such word", float("nan"), float("inf"), [], ["a"], -(10**12)):
            if name == "coef0" and value == -(10**12):
                continue
            with pytest.raises(RejectedError, match=f"hyperparameter {name} of {algorithm.name} takes "):
                algorithm.resolve({name: value}, 1)


@pytest.mark.parametrize("name", ["n_jobs", "verbose", "warm_start", "memory"])
def test_what_is_not_the_users_business_is_refused_with_the_reason(algorithm: Algorithm, name: str) -> None:
    assert "cannot be set: " in rejection(algorithm.name, {name: 1})


def test_seed_is_the_default_of_random_state_where_there_is_one(algorithm: Algorithm) -> None:
    if not algorithm.seeded:
        assert "random_state" in rejection(algorithm.name, {"random_state": 1})
        return
    assert algorithm.resolve({}, 5)["random_state"] == 5
    assert algorithm.resolve({"random_state": None}, 5)["random_state"] == 5
    assert algorithm.resolve({"random_state": 9.0}, 5)["random_state"] == 9
    assert "from 0 to 4,294,967,295, not the seed -1" in rejection(algorithm.name, {}, seed=-1)


def test_the_hyperparameters_of_the_replaced_worker_are_taken() -> None:
    old: dict[str, dict[str, Any]] = {
        "random_forest": {"n_estimators": 50, "max_depth": 4, "random_state": 1, "min_samples_split": 3},
        "logistic_regression": {"C": 0.5, "max_iter": 300, "solver": "saga", "random_state": 1},
        "svm": {"C": 2, "kernel": "poly", "gamma": "auto", "random_state": 1},
        "decision_tree": {"max_depth": 4, "min_samples_split": 3, "random_state": 1},
    }
    for name, hyperparameters in old.items():
        assert find(name).resolve(hyperparameters, 0).items() >= hyperparameters.items()


def test_true_is_no_integer() -> None:
    assert rejection("random_forest", {"n_estimators": True}).endswith("an integer from 1 to 10,000, not true")


def test_a_whole_double_is_an_integer_where_one_is_needed() -> None:
    assert find("random_forest").resolve({"n_estimators": 10.0}, 0)["n_estimators"] == 10
    assert "not 10.5" in rejection("random_forest", {"n_estimators": 10.5})


def test_one_is_a_count_and_one_point_zero_a_share() -> None:
    forest = find("random_forest")
    assert repr(forest.resolve({"max_features": 1}, 0)["max_features"]) == "1"
    assert repr(forest.resolve({"max_features": 1.0}, 0)["max_features"]) == "1.0"
    assert repr(forest.resolve({"max_features": 3.0}, 0)["max_features"]) == "3"


def test_counts_are_capped() -> None:
    assert "from 1 to 10,000, not 10001" in rejection("random_forest", {"n_estimators": 10_001})


def test_an_unknown_hyperparameter_is_rejected_with_the_near_and_all_names() -> None:
    message = rejection("svm", {"gama": 1})
    assert "svm has no hyperparameter 'gama'; did you mean gamma? It takes C, " in message
    assert "random_state" in message


def test_hidden_layers_may_come_as_doubles() -> None:
    network = find("neural_network")
    assert network.resolve({"hidden_layer_sizes": [8.0, 4]}, 0)["hidden_layer_sizes"] == [8, 4]
    assert network.build(network.resolve({"hidden_layer_sizes": [8, 4]}, 0)).hidden_layer_sizes == (8, 4)
    assert "a list of 1 to 20 numbers" in rejection("neural_network", {"hidden_layer_sizes": [8, 0]})


@pytest.mark.parametrize(
    ("algorithm_name", "hyperparameters", "message"),
    [
        ("logistic_regression", {"l1_ratio": 1}, "l1_ratio 1 needs solver saga or liblinear, not lbfgs"),
        ("logistic_regression", {"l1_ratio": 0.5}, "needs solver saga, not lbfgs"),
        ("logistic_regression", {"dual": True}, "dual needs solver liblinear"),
        ("logistic_regression", {"penalty": "l1"}, "l1_ratio 1 the l1 penalty"),
        ("svm", {"break_ties": True, "decision_function_shape": "ovo"}, "break_ties needs decision_function_shape ovr"),
        ("svm", {"probability": True}, "ROC AUC is taken from the decision function"),
        ("svm", {"kernel": "precomputed"}, "one of linear, poly, rbf, sigmoid, not 'precomputed'"),
        ("random_forest", {"oob_score": True, "bootstrap": False}, "oob_score needs bootstrap true"),
        ("random_forest", {"max_samples": 0.5, "bootstrap": False}, "max_samples needs bootstrap true"),
        ("neural_network", {"early_stopping": True, "solver": "lbfgs"}, "needs solver adam or sgd, not lbfgs"),
        ("neural_network", {"early_stopping": True, "validation_fraction": 0}, "validation_fraction above 0"),
    ],
)
def test_values_that_do_not_go_together_are_rejected(
    algorithm_name: str, hyperparameters: dict[str, Any], message: str
) -> None:
    assert message in rejection(algorithm_name, hyperparameters)


def test_liblinear_is_one_vs_rest_above_two_classes() -> None:
    logistic = find("logistic_regression")
    resolved = logistic.resolve({"solver": "liblinear"}, 0)
    assert isinstance(logistic.build(resolved, 3), OneVsRestClassifier)
    assert not isinstance(logistic.build(resolved, 2), OneVsRestClassifier)


def test_an_entry_shows_itself_with_the_fields_of_the_replaced_worker(algorithm: Algorithm) -> None:
    document = algorithm.to_document()
    assert list(document) == ["name", "description", "type", "hyperparameters"]
    assert document["type"] in ("classification", "regression")
    if algorithm.seeded:
        assert document["hyperparameters"]["random_state"]["default"] == "the request's seed"
    assert orjson.dumps(document)


class Offered:
    """An entry point as another package would declare it."""

    name, value = "other", "other_package:ALGORITHM"

    def __init__(self, offer: object) -> None:
        self.offer = offer

    def load(self) -> object:
        return self.offer


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(thing: object) -> None:
        monkeypatch.setattr(algorithms, "entry_points", lambda group: [Offered(thing)])
        catalogue.cache_clear()

    yield install
    monkeypatch.undo()
    catalogue.cache_clear()


def test_another_package_adds_an_algorithm_by_an_entry_point(offer: Any) -> None:
    assert not importlib.metadata.entry_points(group=algorithms.GROUP)
    offer(replace(find("svm"), name="other_svm"))
    assert find("other_svm").resolve({"C": 2}, 0)["C"] == 2


def test_a_name_that_is_taken_or_no_algorithm_is_a_loud_error(offer: Any) -> None:
    offer(find("svm"))
    with pytest.raises(RuntimeError, match="which there is already"):
        catalogue()
    offer("svm")
    with pytest.raises(TypeError, match="is no Algorithm"):
        catalogue()


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 10**5_000, float("inf"), float("nan")], ids=["large", "small", "long", "inf", "nan"]
)
def test_a_number_that_no_float_holds_is_rejected_by_every_hyperparameter(algorithm: Algorithm, value: float) -> None:
    for name in algorithm.hyperparameters:
        assert f"hyperparameter {name} of {algorithm.name} " in rejection(algorithm.name, {name: value})
