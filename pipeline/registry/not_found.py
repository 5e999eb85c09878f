"""Makes the errors for models and versions that a registry does not have."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from pipeline.errors import NotFoundError

SHOWN = 10


def no_such_version(project: str, model_name: str, version_number: int, highest: int) -> NotFoundError:
    there_are = "only v1" if highest == 1 else f"v1 to v{highest}"
    return NotFoundError(f"{project}/{model_name} has no version v{version_number}; there is {there_are}")


def only_archived(project: str, model_name: str, highest: int) -> NotFoundError:
    there_are = "v1 is" if highest == 1 else f"v1 to v{highest} all are"
    return NotFoundError(
        f"{project}/{model_name} has no version that is not archived ({there_are}); name one, or see"
        f" `tensorfleet models list {project}/{model_name} --archived`"
    )


def no_such_model(project: str, model_name: str, names: Collection[str]) -> NotFoundError:
    """`names` are the project's models; the error shows similar ones, else the first."""
    near = get_close_matches(model_name, names, SHOWN) or sorted(names)[:SHOWN]
    there_are = f"there is {', '.join(near)}" if near else "it has no models"
    return NotFoundError(f"project {project} has no model {model_name}; {there_are}")
