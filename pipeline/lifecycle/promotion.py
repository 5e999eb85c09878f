"""Points an alias to another version: promotes through a quality gate, rolls back, removes."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.aliases import PRODUCTION, Alias, AliasChange, AliasChangeReason, AliasStore
from pipeline.errors import NotFoundError, RejectedError, WorseError
from pipeline.jobs import NAME, RegisteredModel, milliseconds
from pipeline.metrics import LOWER_IS_BETTER, METRICS
from pipeline.registry import Registry

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


def promote(
    registry: Registry,
    aliases: AliasStore,
    candidate: RegisteredModel,
    *,
    alias: str = PRODUCTION,
    user: str = "",
    metric: str | None = None,
    tolerance: float = 0.0,
    force: bool = False,
    clock: Clock = _now,
) -> Alias:
    """Point the alias to this version if it is not worse than the current one by more than `tolerance`.

    Metrics are compared only if both were measured on the same test rows.  `metric` defaults to accuracy, or r2 for a
    regressor.  Raises WorseError with the figures, and RejectedError for a wrong alias or metric or an archived
    version.  `force` skips the comparison.
    """
    if not NAME.fullmatch(alias) or _is_version(alias):
        raise RejectedError(
            f"an alias takes 1 to 128 characters of A-Z a-z 0-9 . _ - and is not a version such as v1; not {alias!r}"
        )
    model = candidate.model

    def next_change(present: Alias | None) -> int | None:
        _in_use(registry, model.project, model.model_name, candidate.version_number)
        if present is not None and present.version_number is not None and not force:
            champion = registry.get(model.project, model.model_name, present.version_number)
            if champion.version_number != candidate.version_number:
                _gate(champion, candidate, metric, tolerance)
        return candidate.version_number

    names = (model.project, model.model_name, alias)
    return _kept(registry, _changed(aliases, names, next_change, AliasChangeReason.PROMOTED, user, clock))


def rollback(
    registry: Registry,
    aliases: AliasStore,
    project: str,
    model_name: str,
    *,
    alias: str = PRODUCTION,
    version_number: int | None = None,
    user: str = "",
    clock: Clock = _now,
) -> Alias:
    """Point the alias to an earlier version, by default the previous one; there is no quality gate.

    Raises NotFoundError if the alias, the version or a previous version does not exist, and RejectedError if the
    version is archived.
    """

    def next_change(present: Alias | None) -> int | None:
        found = _there(present, project, model_name, alias)
        wanted = found.history[-1].previous_version_number if version_number is None else version_number
        if wanted is None:
            raise NotFoundError(f"{alias} of {project}/{model_name} pointed to no version before its last change")
        return _in_use(registry, project, model_name, wanted).version_number

    names = (project, model_name, alias)
    return _kept(registry, _changed(aliases, names, next_change, AliasChangeReason.ROLLED_BACK, user, clock))


def remove(
    aliases: AliasStore, project: str, model_name: str, alias: str, *, user: str = "", clock: Clock = _now
) -> Alias:
    """Let the alias point nowhere but keep its history.  Raises NotFoundError if there is no such alias."""

    def next_change(present: Alias | None) -> int | None:
        _there(present, project, model_name, alias)
        return None

    return _changed(aliases, (project, model_name, alias), next_change, AliasChangeReason.REMOVED, user, clock)


def _changed(
    aliases: AliasStore,
    names: tuple[str, str, str],
    next_version: Callable[[Alias | None], int | None],
    reason: AliasChangeReason,
    user: str,
    clock: Clock,
) -> Alias:
    """Change the alias in one atomic step, based on its current state; retry if somebody else was faster."""
    while True:
        present = aliases.get(*names)
        held = None if present is None else present.version_number
        wanted = next_version(present)
        if present is not None and wanted == held:
            return present
        sequence = 1 if present is None else present.sequence + 1
        change = AliasChange(sequence, wanted, held, reason, user, milliseconds(clock()))
        changed = aliases.change(*names, change)
        if changed is not None:
            return changed


def _in_use(registry: Registry, project: str, model_name: str, version_number: int) -> RegisteredModel:
    found = registry.get(project, model_name, version_number)
    if found.archived_at is not None:
        raise RejectedError(
            f"{project}/{model_name} {found.version} is archived; take it out first: "
            f"`tensorfleet models archive {project}/{model_name}@{found.version} --undo`"
        )
    return found


def _kept(registry: Registry, changed: Alias) -> Alias:
    """Restore the version that the alias now points to, if it was archived at the same time: see `archiving`."""
    version_number = changed.version_number
    if version_number is not None:
        names = (changed.project, changed.model_name, version_number)
        if registry.get(*names).archived_at is not None:
            registry.archive(*names, None)
    return changed


def _there(present: Alias | None, project: str, model_name: str, alias: str) -> Alias:
    if present is None:
        raise NotFoundError(f"{project}/{model_name} has no alias {alias}")
    return present


def _gate(champion: RegisteredModel, candidate: RegisteredModel, metric: str | None, tolerance: float) -> None:
    old, new = champion.model, candidate.model
    forced = "force it if that is what you want"
    for what, there, here in (
        ("dataset", old.dataset_fingerprint, new.dataset_fingerprint),
        ("split", old.split, new.split),
    ):
        if there != here or not here:
            raise WorseError(
                f"{candidate.version} cannot be compared with {champion.version}: "
                f"it was tested on another {what}; {forced}"
            )
    measured = METRICS["regression" if new.model_type == "regression" else "classification"]
    name = metric or ("r2" if new.model_type == "regression" else "accuracy")
    if name not in measured:
        raise RejectedError(f"what is compared takes one of {', '.join(measured)}, not {name}")
    was, is_ = old.metrics.get(name, math.nan), new.metrics.get(name, math.nan)
    if math.isnan(was) or math.isnan(is_):
        known = ", ".join(sorted(old.metrics.keys() & new.metrics.keys()))
        raise RejectedError(f"{name} was not measured of both versions; both have {known}")
    loss = is_ - was if name in LOWER_IS_BETTER else was - is_
    if not loss <= tolerance:
        raise WorseError(
            f"{candidate.version} has {name} {is_:.4g} and {champion.version} {was:.4g}: it is worse by {loss:.4g}, "
            f"and may be by {tolerance:g} (tolerance); {forced}"
        )


def _is_version(alias: str) -> bool:
    return alias[:1] == "v" and alias[1:].isdecimal()
