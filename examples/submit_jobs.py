"""Train three algorithms on one dataset, follow them to their ends, and show which is best.

    python examples/submit_jobs.py

It goes to the Kafka of KAFKA_BOOTSTRAP_SERVERS (and SCHEMA_REGISTRY_URL), else to a `tensorfleet dev` in this folder.
"""

# ruff: noqa: T201 - it prints

from tensorfleet import Client

ALGORITHMS = {
    "random_forest": {"n_estimators": 200},
    "logistic_regression": {"C": 0.5, "max_iter": 500},
    "svm": {"C": 2.0, "kernel": "rbf"},
}


def main() -> None:
    with Client() as fleet:
        submitted = {
            fleet.submit(
                algorithm=algorithm,
                dataset_name="breast_cancer",
                model_name="tumours",
                project="examples",
                hyperparameters=hyperparameters,
                evaluation={"test_size": 0.25, "cv": 3},
                tags={"from": "examples/submit_jobs.py"},
            ): algorithm
            for algorithm, hyperparameters in ALGORITHMS.items()
        }
        for event in fleet.watch(*submitted, timeout_s=600):
            print(f"{submitted[event['request_id']]:20} {event['state']:12} {event['message']}")
        ended = fleet.wait_all(submitted, timeout_s=60).values()
    scores = {end.version: end.metrics["test_accuracy"] for end in ended if end.version is not None}
    for version, accuracy in sorted(scores.items(), key=lambda one: one[1], reverse=True):
        print(f"examples/tumours {version}: test_accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
