"""`tensorfleet models aliases`, `promote`, `rollback`, `unalias`: show and change what aliases point to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli import context
from consumer.cli.output import (
    Document,
    Json,
    Project,
    Stop,
    TableColumn,
    column,
    minute,
    note,
    show_rows,
    write,
    write_json,
)
from consumer.cli.values import WRONG_USE, of_model, user_name
from pipeline.aliases import PRODUCTION

if TYPE_CHECKING:
    from consumer.stores import Stores
    from pipeline.aliases import Alias
    from pipeline.lifecycle.references import ModelReference

AliasName = Annotated[str, typer.Option("--alias", metavar="NAME", help="Which alias.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="NAME or PROJECT/NAME.")]


def aliases(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="NAME or PROJECT/NAME.")] = None,
    project: Project = None,
    history: Annotated[bool, typer.Option("--history", help="Every change, the oldest first.")] = False,
    as_json: Json = False,
) -> None:
    """List aliases, and the version that each points to."""
    project, name = of_model(model, context.scope(project))
    stores = context.stores()
    found = stores.aliases.list(project=project, model_name=name)
    columns = (
        TableColumn("MODEL", lambda one: f"{one['project']}/{one['model_name']}"),
        column("ALIAS", "alias", style="bold"),
        column("VERSION", "version", whole=True),
        column("BEFORE", "previous_version"),
        column("REASON", "reason", extra=True),
        column("USER", "user", style="dim", extra=True),
        TableColumn("CHANGED", lambda one: minute(one["occurred_at"]), style="dim", whole=True, extra=True),
    )
    none = "There is no alias; `tensorfleet models promote NAME@v1` makes one."
    show_rows((row for one in found for row in _rows(one, history)), columns, as_json=as_json, none=none)
    for one in found:
        _tell_if_archived(stores, one)


def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME (the newest version), NAME@v3 or NAME@alias.")],
    alias: AliasName = PRODUCTION,
    metric: Annotated[str | None, typer.Option(help="The metric to compare by.  [default: accuracy, or r2]")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="How much worse it may be than the present version.")] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Promote without comparing.")] = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Point an alias to a version, if it is not worse than the present one on the same test rows."""
    from pipeline.lifecycle.promotion import promote as promoted

    stores, candidate = context.registered(model, project)
    changed = promoted(
        stores.registry,
        stores.aliases,
        candidate,
        alias=alias,
        user=user_name(),
        metric=metric,
        tolerance=tolerance,
        force=force,
    )
    _tell(stores, changed, as_json)


def rollback(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME (the version before), or NAME@v3.")],
    alias: AliasName = PRODUCTION,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Point an alias to an earlier version again: by default to that before its last change, so that twice is back."""
    from pipeline.lifecycle.promotion import rollback as rolled_back

    stores, wanted = context.stores(), _without_alias(model, project)
    changed = rolled_back(
        stores.registry,
        stores.aliases,
        wanted.project,
        wanted.model_name,
        alias=alias,
        version_number=wanted.version_number,
        user=user_name(),
    )
    _tell(stores, changed, as_json)


def unalias(model: ModelName, alias: AliasName = PRODUCTION, project: Project = None, as_json: Json = False) -> None:
    """Let an alias point to no version any more."""
    from pipeline.lifecycle.promotion import remove

    stores, wanted = context.stores(), _without_alias(model, project)
    if wanted.version_number is not None:
        raise Stop(f"unalias takes a model's name without a version: {wanted.model_name}, not {model}", WRONG_USE)
    _tell(stores, remove(stores.aliases, wanted.project, wanted.model_name, alias, user=user_name()), as_json)


def _without_alias(model: str, project: str | None) -> ModelReference:
    from pipeline.lifecycle.references import model_reference

    reference = model_reference(model, context.scope(project))
    if reference.alias is not None:
        raise Stop(f"say --alias {reference.alias} instead of {model}", WRONG_USE)
    return reference


def _tell(stores: Stores, changed: Alias, as_json: bool) -> None:
    """Announce the change at once; if that fails, a worker does it later."""
    from consumer.events.errors import MissingTopicsError
    from consumer.publishing.alias_events import news
    from consumer.settings import SettingsError
    from pipeline.errors import TransientError

    try:
        with context.client() as client:
            client.prepare()
            client.send(news(client.codec, client.topics, changed))
        stores.aliases.announced(changed)
    except (SettingsError, MissingTopicsError, TransientError) as error:
        note(f"the alias is changed; a worker will announce it, as this command could not: {error}")
    row = _rows(changed, history=False)[0]
    if as_json:
        write_json(row)
    else:
        where = row["version"] or "no version"
        write(f"{row['project']}/{row['model_name']}@{row['alias']} points to {where}")


def _tell_if_archived(stores: Stores, alias: Alias) -> None:
    """Point out an archived version under an alias, which a command that died while archiving may leave."""
    if alias.version_number is None:
        return
    found = stores.registry.get(alias.project, alias.model_name, alias.version_number)
    if found.archived_at is not None:
        model = f"{alias.project}/{alias.model_name}"
        undo = f"`tensorfleet models archive {model}@{found.version} --undo`"
        note(f"{model}@{alias.alias} points to {found.version}, which is archived: {undo}, or promote another")


def _rows(alias: Alias, history: bool) -> list[Document]:
    from consumer.events.outgoing import alias_changed

    return [alias_changed(alias, change) for change in (alias.history if history else alias.history[-1:])]
