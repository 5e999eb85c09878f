"""The deep-learning frameworks: what each needs, and whether it is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework; its name is also that of the extra that installs it.

    Attributes:
        libraries: distributions whose versions its results depend on.
        preload: modules that a forkserver imports before its first fork.  Imports only: a child of a process that has
            run an operation hangs.
        variables: environment variables that it reads at import.
    """

    name: str
    libraries: tuple[str, ...]
    preload: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        return all(find_spec(module.partition(".")[0]) is not None for module in self.preload)

    def networks(self) -> Any:
        """The module `pipeline.deep.{name}_networks`.  Raises ModuleNotFoundError that names the extra."""
        if not self.installed:
            raise ModuleNotFoundError(f"this model needs {self.name}: install tensorfleet-worker[{self.name}]")
        for name, value in self.variables.items():
            os.environ.setdefault(name, value)
        return import_module(f"pipeline.deep.{self.name}_networks")


FRAMEWORKS: Mapping[str, Framework] = MappingProxyType(
    {
        "keras": Framework(
            "keras",
            ("keras", "tensorflow", "tensorflow-cpu"),
            ("tensorflow", "keras"),
            {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"},
        ),
        "torch": Framework("torch", ("torch",), ("torch", "torch._dynamo")),
    }
)


def warm_up(framework: str) -> None:
    """Import what trainings with this framework need; an empty name imports nothing."""
    if framework:
        FRAMEWORKS[framework].networks()
        for module in FRAMEWORKS[framework].preload:
            import_module(module)
