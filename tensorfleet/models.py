"""Loads registered models, and model files, into any Python program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consumer.embedded import with_stores
from consumer.settings import load_settings
from consumer.stores import open_ready
from pipeline.errors import NotFoundError
from pipeline.lifecycle.references import find_model, model_reference
from pipeline.model_files import model_file
from pipeline.model_files.model_file import LoadedModel


def load_model(model: str | Path, *, sha256: str | None = None, **named: Any) -> LoadedModel:
    """A model that scores raw rows: `load_model("flowers@production").predict(frame)`.

    Args:
        model: `NAME` (the newest version), `NAME@v3` or `NAME@production`, each also as `PROJECT/NAME…`; or a Path, or
            a str that ends in .zip: a model file, or the folder that one was unpacked to.
        sha256: that a file must have; a registered model must have the one that was registered.
        named: settings, as in `mongodb_url="mongodb://…"`; they come before the environment, `.env`, and the
            `tensorfleet-data` of a `tensorfleet dev` in this folder.

    Raises:
        NotFoundError: there is no such model, version or alias.
        FileNotFoundError: there is no such file.
        CorruptArtifactError: the file is not the one that was registered, or no model file.
        RejectedError: `model` is no name of a model.
        SettingsError: no store is named.
        TransientError: a store does not answer.
    """
    if isinstance(model, Path) or model.endswith(".zip"):
        return model_file.load(Path(model), sha256)
    settings = load_settings(needs=(), **named)
    reference = model_reference(model, settings.tensorfleet_project)
    stores = open_ready(with_stores(settings))
    try:
        registered = find_model(stores.registry, stores.aliases, reference)
    except NotFoundError as error:
        if Path(model).exists():
            raise NotFoundError(
                f"{error}; for what lies here under that name say load_model(Path({model!r}))"
            ) from None
        raise
    return model_file.fetch(stores.artifacts, registered.model)
