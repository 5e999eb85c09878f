"""Writes the files with which MLflow loads an unpacked model file; the worker does not need MLflow.

MLflow 3 reads skops archives in its scikit-learn flavour.  YAML is a superset of JSON, so `MLmodel` is written as JSON.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import orjson
import sklearn

from pipeline.features.columns import Column

WRITTEN_FOR = "3.0.0"
"""The oldest MLflow whose scikit-learn flavour reads skops."""
ANY = "any"
"""The type of inputs, so that the model decides what it reads: MLflow's `long` takes no missing value, its `double` no
64-bit integers, its `datetime` no text.  Of all inputs, as MLflow 3.0 loses the index of those that are `any`.
"""


def mlmodel(
    columns: Sequence[Column], target_type: str, trusted_types: Sequence[str], model_uuid: str, created: datetime
) -> bytes:
    """The `MLmodel` file."""
    inputs = [{"type": ANY, "name": column.name, "required": True} for column in columns]
    outputs = [{"type": target_type, "required": True}]
    flavors = {
        "python_function": {
            "env": {"virtualenv": "python_env.yaml"},
            "loader_module": "mlflow.sklearn",
            "model_path": "model.skops",
            "predict_fn": "predict",
            "python_version": platform.python_version(),
        },
        "sklearn": {
            "code": None,
            "pickled_model": "model.skops",
            "serialization_format": "skops",
            "sklearn_version": sklearn.__version__,
            "skops_trusted_types": list(trusted_types),
        },
    }
    return orjson.dumps(
        {
            "flavors": flavors,
            "mlflow_version": WRITTEN_FOR,
            "model_uuid": model_uuid,
            "signature": {"inputs": _text(inputs), "outputs": _text(outputs), "params": None},
            "utc_time_created": created.strftime("%Y-%m-%d %H:%M:%S.%f"),
        }
    )


@cache
def python_env() -> bytes:
    """`python_env.yaml`, from which MLflow builds an environment for the model."""
    dependencies = ["-r requirements.txt"]
    return orjson.dumps(
        {"python": platform.python_version(), "build_dependencies": ["pip"], "dependencies": dependencies}
    )


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()
