"""Archives a version: it stays with its file, and is left out unless somebody names it.

No alias is left on an archived version. The alias and the version are two documents, so each side writes its own first
and looks at the other's then: archiving notes that the version is archived and asks for aliases again, promoting and
rolling back (`promotion`) change the alias and look at the version again. Whichever came second sees the other, and
both settle it alike, in the alias's favour: the version is not archived any more. So a version can be taken out of the
archive by being promoted in the same moment, but never served out of it unseen.

That holds as long as both get to their second look. If one dies before it, and within milliseconds of the other, the
alias may point to an archived version: it then still resolves and loads as before, `models aliases` shows the version
as archived, and archiving it again, or taking it out, mends that.
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
    """Archive a version that no alias points to; one that is archived stays so.

    Raises RejectedError with the aliases that point there, and NotFoundError with the versions that there are.
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
    """Take a version out of the archive; one that is not in it stays as it is.  Raises NotFoundError."""
    return registry.archive(project, model_name, version_number, None)


def _pointing(aliases: AliasStore, project: str, model_name: str, version_number: int) -> Sequence[str]:
    found = aliases.list(project=project, model_name=model_name)
    return [one.alias for one in found if one.version_number == version_number]
