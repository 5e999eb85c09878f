"""`tensorfleet models archive`: hides a version, or shows it again."""

from __future__ import annotations

from typing import Annotated

import typer

from consumer.cli import context
from consumer.cli.output import Json, Project, Stop, write, write_json
from consumer.cli.values import WRONG_USE


def archive(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME@v3 or PROJECT/NAME@v3.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take it out of the archive.")] = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Hide a version from lists and from what NAME alone means; it stays, and so does its file.

    A version that an alias points to is not archived.
    """
    from pipeline.lifecycle.archiving import archive as archived
    from pipeline.lifecycle.archiving import restore
    from pipeline.lifecycle.references import model_reference

    named = model_reference(model, context.scope(project))
    if named.version_number is None:
        raise Stop(f"say which version: {named.model_name}@v3, not {model}", WRONG_USE)
    version = (named.project, named.model_name, named.version_number)
    stores = context.stores()
    found = restore(stores.registry, *version) if undo else archived(stores.registry, stores.aliases, *version)
    if as_json:
        write_json(found.to_document())
    else:
        place = f"{named.project}/{named.model_name} {found.version}"
        write(f"{place} is {'in use again' if undo else 'archived'}")
