"""Archives a version: its file stays, and it is left out of lists and defaults unless somebody names it.

No alias points to an archived version.  Alias and version are two documents, so each side writes its own document first
and then reads the other's.  Archiving marks the version and then looks for aliases again; promoting and rolling back
(`promotion`) change the alias and then read the version again.  Whichever comes second sees the other's write, and both
resolve the conflict in the alias's favour: the version is restored.  A concurrent promotion can thus undo an archiving,
but an archived version is never served unnoticed.

This holds if both sides reach their second read.  If one dies before it, within milliseconds of the other, the alias
may point to an archived version.  It then still resolves and loads, `models aliases` shows the version as archived, and
archiving or restoring it again repairs that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pipeline.aliases import AliasStore
from pipeline.errors import RejectedError
from pipeline.jobs import RegisteredModel, milliseconds
from pipeline.registry import Registry


def archive(
    registry: Registry,
    aliases: AliasStore,
    project: str,
    model_name: str,
    version_number: int,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RegisteredModel:
    """Archive a version that no alias points to; an archived version stays archived.

    Raises RejectedError that names the aliases that point to it, and NotFoundError that lists the versions.
    """
    version = (project, model_name, version_number)
    pointing = _pointing(aliases, *version)
    if not pointing:
        archived = registry.archive(*version, milliseconds(clock()))
        pointing = _pointing(aliases, *version)
        if not pointing:
            return archived
    kept = registry.archive(*version, None)
    raise RejectedError(
        f"{project}/{model_name} {kept.version} is not archived: {', '.join(pointing)} points to it; promote another"
        " version first, or take the alias away (`tensorfleet models unalias`)"
    )


def restore(registry: Registry, project: str, model_name: str, version_number: int) -> RegisteredModel:
    """Restore an archived version; others stay as they are.  Raises NotFoundError."""
    return registry.archive(project, model_name, version_number, None)


def _pointing(aliases: AliasStore, project: str, model_name: str, version_number: int) -> Sequence[str]:
    found = aliases.list(project=project, model_name=model_name)
    return [one.alias for one in found if one.version_number == version_number]
