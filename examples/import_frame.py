"""Store a pandas frame as a dataset, train on it, and change it: the older rows stay, as a version.

    python examples/import_frame.py

It goes to KAFKA_BOOTSTRAP_SERVERS and MONGODB_URL, else to a `tensorfleet dev` in this folder.
"""

# ruff: noqa: T201 - it prints

import numpy as np
import pandas as pd

from tensorfleet import Client


def orders(rows: int, seed: int = 7) -> pd.DataFrame:
    """Orders, and whether they were returned: categories, integers with gaps, dates and booleans."""
    draw = np.random.default_rng(seed)
    size = pd.Categorical(draw.choice(["S", "M", "L"], rows))
    items = pd.Series(draw.integers(1, 9, rows), dtype="Int64").mask(draw.random(rows) < 0.1)
    gift = draw.random(rows) < 0.2
    ordered = pd.Timestamp("2026-01-01") + pd.to_timedelta(draw.integers(0, 365, rows), "D")
    returned = np.where(draw.random(rows) < 0.15 + 0.5 * (items.fillna(0) > 5) - 0.1 * gift, "yes", "no")
    return pd.DataFrame({"size": size, "items": items, "gift": gift, "ordered": ordered, "returned": returned})


def main() -> None:
    with Client() as fleet:
        for frame in (orders(2_000), orders(3_000)):
            stored = fleet.import_dataset("orders", frame, target_column="returned")
            print(f"orders v{stored.number}: {stored.rows:,} rows, fingerprint {stored.fingerprint}")
        for dataset in ("orders.v1", "orders"):
            request_id = fleet.submit(
                algorithm="gradient_boosting", dataset_name=dataset, model_name="returns", project="examples"
            )
            end = fleet.wait(request_id, timeout_s=600)
            print(f"trained on {dataset}: {end.state}, test_accuracy {end.metrics.get('test_accuracy')}")


if __name__ == "__main__":
    main()
