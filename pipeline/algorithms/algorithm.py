"""An entry of the catalogue: an algorithm, its hyperparameters, and how its estimator is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from pipeline.algorithms.declared import DECLARED
from pipeline.algorithms.hyperparameters import Hyperparameter, Integer, Kind, derive, shown
from pipeline.deep.shapes import row_shape
from pipeline.errors import RejectedError, did_you_mean
from pipeline.jobs import HyperparameterValue

Task = Literal["classification", "regression"]
Takes = Literal["table", "image", "sequence"]
Resolved = Mapping[str, HyperparameterValue]

SEED = Integer(0, 2**32 - 1)

NOT_THE_USERS = {
    "n_jobs": "the worker decides how many CPUs a training gets",
    "verbose": "progress is reported by events",
    "warm_start": "a training starts from nothing",
    "memory": "the worker decides what is cached",
}
"""Refused for every algorithm; the value is the reason in the error."""


@dataclass(frozen=True, slots=True)
class Late:
    """An estimator class that is imported only when it is needed: a worker and most commands make no estimator."""

    module: str
    name: str

    def __call__(self, **given: Any) -> Any:
        return getattr(import_module(self.module), self.name)(**given)


@dataclass(frozen=True)
class Algorithm:
    """An algorithm; other packages offer one through an entry point of the group `tensorfleet.algorithms`.

    Attributes:
        task: classification or regression; data rules and metrics follow from it.
        estimator: makes an unfitted estimator from hyperparameters; a scikit-learn class or a similar function.
        hyperparameters: what a request may set; `random_state` is added if the estimator has one.
        refused: hyperparameters that the estimator has but a request may not set, with the reason.
        seeded: whether the estimator takes a `random_state`.
        check: raises ValueError for values that are valid alone but not together.
        adapt: returns the estimator for a number of classes, if it depends on that.
        needs_dense: whether the estimator cannot be fitted on a sparse matrix.
        sliced: whether `warm_start` adds members one after another, so that a fit in slices can report progress.
        framework: its name in pipeline.deep.frameworks; empty for scikit-learn.
        takes: what a row is; images and sequences are columns of numbers with a shape.
        trusted_types: types in its fitted state beyond those that every model file may hold.
    """

    name: str
    description: str
    task: Task
    estimator: Callable[..., Any]
    hyperparameters: Mapping[str, Hyperparameter]
    refused: Mapping[str, str] = field(default_factory=dict)
    seeded: bool = True
    check: Callable[[Resolved], None] | None = None
    adapt: Callable[[Any, int], Any] | None = None
    needs_dense: bool = False
    sliced: bool = False
    framework: str = ""
    takes: Takes = "table"
    trusted_types: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        name: str,
        description: str,
        task: Task,
        estimator: Callable[..., Any],
        *,
        refused: Mapping[str, str] | None = None,
        overrides: Mapping[str, Sequence[Kind]] | None = None,
        caps: Mapping[str, int] | None = None,
        **rest: Any,
    ) -> Algorithm:
        """An entry whose hyperparameters are derived from what a scikit-learn estimator class declares.

        For ours the module `declared` has that; for others an estimator is made and asked.
        """
        refusals = {**NOT_THE_USERS, **(refused or {})}
        overrides = overrides or {}
        declared = DECLARED.get(name)
        if declared is None:
            from pipeline.algorithms.scikit_learn import declared_by

            declared = declared_by(estimator(), {"random_state", *refusals, *overrides})
        hyperparameters = derive(declared, refusals, overrides, caps or {})
        rest.setdefault("seeded", any(one.name == "random_state" for one in declared))
        return cls(name, description, task, estimator, hyperparameters, refusals, **rest)

    def resolve(self, hyperparameters: Resolved, seed: int, *, alone: bool = False) -> dict[str, HyperparameterValue]:
        """All hyperparameters: the given ones, checked, and defaults for the others.

        Raises RejectedError that says what is wrong and what would be right.  With `alone` each value is checked but
        not whether they fit together, since a search will still add others.
        """
        resolved = {name: parameter.default for name, parameter in self.hyperparameters.items()}
        for name, value in hyperparameters.items():
            if name == "random_state" and self.seeded:
                continue
            resolved[name] = self._read(name, value)
        if self.seeded:
            resolved["random_state"] = self._random_state(hyperparameters.get("random_state"), seed)
        if self.check is not None and not alone:
            try:
                self.check(resolved)
            except ValueError as wrong:
                raise RejectedError(f"{self.name}: {wrong}") from None
        return resolved

    def with_shape(self, hyperparameters: Resolved, shape: Sequence[int] | None) -> Resolved:
        """Set input_shape to the shape of the dataset's tensors, unless the request sets it."""
        if self.takes == "table" or shape is None or hyperparameters.get("input_shape") is not None:
            return hyperparameters
        return {**hyperparameters, "input_shape": list(shape)}

    def check_columns(self, resolved: Resolved, n_columns: int, not_numeric: Sequence[str]) -> None:
        """Raises RejectedError if these feature columns do not form the image or sequence that the algorithm takes."""
        if self.takes == "table":
            return
        if not_numeric:
            are = "is" if len(not_numeric) == 1 else "are"
            raise RejectedError(
                f"{self.name} reads all feature columns together as one {self.takes} of numbers; "
                f"{', '.join(not_numeric[:10])} {are} not numeric"
            )
        shape: Any = resolved.get("input_shape")
        row_shape(self.takes, n_columns, shape)

    def build(self, resolved: Resolved, n_classes: int = 2) -> Any:
        """The unfitted estimator for resolved hyperparameters; a regressor ignores `n_classes`."""
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in resolved.items()}
        estimator = self.estimator(**given)
        return estimator if self.adapt is None else self.adapt(estimator, n_classes)

    def to_document(self) -> dict[str, Any]:
        """The fields that `tensorfleet algorithms` shows: name, description, type, hyperparameters."""
        shown_as = {name: parameter.to_document() for name, parameter in self.hyperparameters.items()}
        if self.seeded:
            shown_as["random_state"] = {"default": "the request's seed", "accepts": str(SEED)}
        return {"name": self.name, "description": self.description, "type": self.task, "hyperparameters": shown_as}

    def _read(self, name: str, value: HyperparameterValue) -> HyperparameterValue:
        parameter = self.hyperparameters.get(name)
        if parameter is None:
            raise RejectedError(self._unknown(name))
        try:
            return parameter.read(value)
        except ValueError as wrong:
            raise RejectedError(f"hyperparameter {name} of {self.name} {wrong}") from None

    def _random_state(self, value: HyperparameterValue, seed: int) -> int:
        try:
            return SEED.read(seed if value is None else value)
        except ValueError:
            given = f"the seed {seed}" if value is None else shown(value)
            raise RejectedError(f"hyperparameter random_state of {self.name} takes {SEED}, not {given}") from None

    def _unknown(self, name: str) -> str:
        if name in self.refused:
            return f"hyperparameter {name} of {self.name} cannot be set: {self.refused[name]}"
        names = sorted({*self.hyperparameters, *(["random_state"] if self.seeded else [])})
        hint = did_you_mean(name, names) or "."
        return f"{self.name} has no hyperparameter {shown(name)}{hint} It takes {', '.join(names)}"
