"""Exports what other programs may import of TensorFleet worker; all else is internal and may change.

    from tensorfleet import Client, load_model

    with Client() as fleet:
        finished = fleet.wait(fleet.submit(algorithm="random_forest", dataset_name="iris", model_name="flowers"))
    model = load_model("flowers")
    print(model.predict([{"sepal length": 5.1, "sepal width": 3.5, "petal length": 1.4, "petal width": 0.2}]).labels)

Each name is imported on first use: a program that only predicts loads no Kafka client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer.async_client import AsyncClient
    from consumer.client import Client, Finished
    from consumer.events.errors import MissingTopicsError, UndecodableError
    from consumer.settings import SettingsError
    from pipeline.errors import AccessDeniedError, CorruptArtifactError, NotFoundError, RejectedError, TransientError
    from pipeline.model_files.model_file import LoadedModel, Predictions
    from tensorfleet.models import load_model

_HOMES = {
    "AccessDeniedError": "pipeline.errors",
    "AsyncClient": "consumer.async_client",
    "Client": "consumer.client",
    "CorruptArtifactError": "pipeline.errors",
    "Finished": "consumer.client",
    "LoadedModel": "pipeline.model_files.model_file",
    "MissingTopicsError": "consumer.events.errors",
    "NotFoundError": "pipeline.errors",
    "Predictions": "pipeline.model_files.model_file",
    "RejectedError": "pipeline.errors",
    "SettingsError": "consumer.settings",
    "TransientError": "pipeline.errors",
    "UndecodableError": "consumer.events.errors",
    "load_model": "tensorfleet.models",
}

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "Client",
    "CorruptArtifactError",
    "Finished",
    "LoadedModel",
    "MissingTopicsError",
    "NotFoundError",
    "Predictions",
    "RejectedError",
    "SettingsError",
    "TransientError",
    "UndecodableError",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
