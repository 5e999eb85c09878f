"""Resolves a name such as `flowers@production` to a version of a model."""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.aliases import AliasStore
from pipeline.errors import NotFoundError, RejectedError
from pipeline.jobs import RegisteredModel
from pipeline.registry import Registry

DEFAULT_PROJECT = "default"


class ModelReference(NamedTuple):
    """A model by name, with a version or an alias; with neither it means the newest version."""

    project: str
    model_name: str
    version_number: int | None
    alias: str | None = None

    def __str__(self) -> str:
        project = "" if self.project == DEFAULT_PROJECT else f"{self.project}/"
        version = f"@{self.alias}" if self.alias else ""
        version = version if self.version_number is None else f"@v{self.version_number}"
        return f"{project}{self.model_name}{version}"


def model_reference(text: str, project: str | None = None) -> ModelReference:
    """Read `NAME`, `NAME@v3` or `NAME@production`, each also as `PROJECT/NAME…`; with `project` only in that project.

    Raises RejectedError for anything else.
    """
    match = re.fullmatch(r"(?:([^/@\s]+)/)?([^/@\s]+)(?:@(?:v(\d+)|([^/@\s]+)))?", text)
    if match is None:
        raise RejectedError(f"a model is NAME, NAME@v3, NAME@alias or PROJECT/NAME@v3, not {text!r}")
    named = match[1]
    if project is not None and named not in (None, project):
        raise RejectedError(
            f"this is limited to project {project} (--project, TENSORFLEET_PROJECT), and {named} is another project"
        )
    version_number = int(match[3]) if match[3] else None
    return ModelReference(named or project or DEFAULT_PROJECT, match[2], version_number, match[4])


def find_model(registry: Registry, aliases: AliasStore, reference: ModelReference) -> RegisteredModel:
    """The version that a reference means.  Raises NotFoundError that lists what exists."""
    version_number = reference.version_number
    if reference.alias is not None:
        alias = aliases.get(reference.project, reference.model_name, reference.alias)
        if alias is None or alias.version_number is None:
            known = aliases.list(project=reference.project, model_name=reference.model_name)
            names = ", ".join(one.alias for one in known if one.version_number is not None) or "none"
            raise NotFoundError(f"{reference.model_name} has no alias {reference.alias}; there is {names}")
        version_number = alias.version_number
    return registry.get(reference.project, reference.model_name, version_number)
