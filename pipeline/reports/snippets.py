"""Programs for a report that load the model and ask it; they run as they stand."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.deep.classifier import DeepClassifier
from pipeline.features.columns import Role
from pipeline.jobs import RegisteredModel
from pipeline.model_files.model_file import LoadedModel, ModelContent


def of_version(registered: RegisteredModel, loaded: LoadedModel) -> Mapping[str, str]:
    """The programs by what they need."""
    model = registered.model
    name = f"{model.project}/{model.model_name}@{registered.version}"
    folder = f"{model.model_name}-{registered.version}"
    made = f"`tensorfleet models download {name}`, which writes the folder {folder}"
    return {
        "With tensorfleet-worker, beside the fleet's stores": _ours(f'"{name}"'),
        f"With tensorfleet-worker alone, after {made}": _ours(f'Path("{folder}")'),
        **_in_mlflow(loaded, f"With MLflow 3 and skops, after {made}", folder),
    }


def of_file(content: ModelContent) -> Mapping[str, str]:
    """For a report that lies in the model file itself."""
    where = "in the folder that the model file was unpacked to"
    return {
        f"With tensorfleet-worker, {where}": _ours('Path(".")'),
        **_in_mlflow(content, f"With MLflow 3 and skops, {where}", "."),
    }


def _ours(where: str) -> str:
    imported = "from pathlib import Path\n\n" if where.startswith("Path") else ""
    return (
        f"{imported}from tensorfleet import load_model\n"
        "\n"
        f"model = load_model({where})\n"
        "rows = model.example  # raw rows: dictionaries, or a pandas frame\n"
        "print(model.predict(rows).labels)\n"
    )


def _in_mlflow(loaded: LoadedModel | ModelContent, needs: str, folder: str) -> Mapping[str, str]:
    """Nothing if the model needs code of ours, or its columns hold lists, which MLflow does not spread."""
    ours = isinstance(loaded.pipeline[-1], DeepClassifier) or any(one.role is Role.DATE for one in loaded.columns)
    if ours or loaded.manifest.get("tensors"):
        return {}
    program = (
        "import json\n"
        "\n"
        "import mlflow\n"
        "import pandas\n"
        "\n"
        f'model = mlflow.pyfunc.load_model("{folder}")\n'
        f'rows = pandas.DataFrame(json.load(open("{folder}/example.json")))\n'
        "print(model.predict(rows))\n"
    )
    return {needs: program}
