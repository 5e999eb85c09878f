"""Loads registered models, and model files, into any Python program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consumer.embedded import with_stores
from consumer.settings import Settings, SettingsError, load_settings
from consumer.stores import open_stores
from pipeline.errors import CorruptArtifactError, NotFoundError, RejectedError
from pipeline.lifecycle.references import find_model, model_reference
from pipeline.model_files import model_file
from pipeline.model_files.model_file import LoadedModel


def load_model(model: str | Path, *, sha256: str | None = None, **named: Any) -> LoadedModel:
    """Load a model that scores raw rows: `load_model("flowers@production").predict(frame)`.

    Args:
        model: `NAME` (the newest version), `NAME@v3` or `NAME@production`, each also as `PROJECT/NAME…`; or a Path, or
            a str that ends in .zip: a model file, or the folder that one was unpacked to.
        sha256: the hash that the file must have, checked before anything in it is read.  A registered model is always
            checked against its registered hash.
        named: settings, as in `mongodb_url="mongodb://…"`; they have precedence over the environment, `.env`, and the
            `tensorfleet-data` of a `tensorfleet dev` in this folder.  With TENSORFLEET_PROJECT only models of that
            project are found.

    Raises:
        NotFoundError: there is no such model, version or alias.
        FileNotFoundError: there is no such file.
        CorruptArtifactError: the file is not the registered one, or not a model file.
        RejectedError: `model` is not a model's name, or names one of another project.
        SettingsError: no store is named.
        TransientError: a store does not answer.
    """
    if isinstance(model, Path) or model.endswith(".zip"):
        if sha256 is not None and Path(model).is_dir():
            raise RejectedError(f"a sha256 is that of a model file, but {model} is a folder")
        return model_file.load(Path(model), sha256)
    try:
        return _registered(model, sha256, load_settings(needs=(), **named), anywhere=not named.get("mongodb_url"))
    except (NotFoundError, RejectedError, SettingsError) as error:
        if Path(model).exists():
            raise type(error)(f"{error}; for the file or folder {model} use load_model(Path({model!r}))") from None
        raise


def _registered(name: str, sha256: str | None, settings: Settings, *, anywhere: bool) -> LoadedModel:
    """With `anywhere`, a `tensorfleet dev`'s stores are used too."""
    reference = model_reference(name, settings.tensorfleet_project)
    stores = open_stores(with_stores(settings) if anywhere else settings)
    try:
        if settings.embedded:
            stores.prepare()
        registered = find_model(stores.registry, stores.aliases, reference)
        found = registered.model.artifact_sha256
        if sha256 is not None and sha256.lower() != found:
            raise CorruptArtifactError(f"{name} is registered with the sha256 {found}, not {sha256}")
        return model_file.fetch(stores.artifacts, registered)
    finally:
        stores.close()
