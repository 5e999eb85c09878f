"""`tensorfleet schemas`: registers our schemas in the schema registry, and checks them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from consumer.cli import context
from consumer.cli.output import Document, Json, Stop, TableColumn, column, show_rows

app = typer.Typer(help="Schemas in the schema registry: register, check.", no_args_is_help=True)


@app.command()
def register(as_json: Json = False) -> None:
    """Register this release's schemas, each FULL_TRANSITIVE; what is there already stays as it is.

    Workers then need no right to write to the registry.
    """
    from consumer.events.schema_registry import IncompatibleSchemaError

    try:
        show_rows(_registered(), (column("SUBJECT", "subject"), column("ID", "id", right=True)), as_json=as_json)
    except IncompatibleSchemaError as error:
        raise Stop(f"the schema registry refuses {error}", 1) from error


@app.command()
def check(as_json: Json = False) -> None:
    """Say which of this release's schemas are registered, and which the registry would refuse; writes nothing."""
    found = list(checked())
    columns = (
        column("SUBJECT", "subject"),
        column("STATE", "state", style=_style),
        column("ID", "id", right=True),
        TableColumn("WHY", lambda one: "; ".join(one["why"]), fold=True),
    )
    show_rows(found, columns, as_json=as_json)
    refused = [one["subject"] for one in found if one["state"] == "incompatible"]
    if refused:
        raise Stop(f"the schema registry would refuse {', '.join(refused)}", 1)


def _registered() -> Iterator[dict[str, Any]]:
    from schemas import RecordType, schema

    codec, registry = _codec()
    for record in RecordType:
        subject = codec.subject(record)
        yield {"subject": subject, "id": registry.publish(subject, schema(record))}


def checked() -> Iterator[dict[str, Any]]:
    from schemas import RecordType, schema

    codec, registry = _codec()
    for record in RecordType:
        subject = codec.subject(record)
        number = registry.lookup(subject, schema(record))
        why = [] if number is not None else registry.incompatibilities(subject, schema(record))
        state = "incompatible" if why else "missing" if number is None else "registered"
        yield {"subject": subject, "state": state, "id": number, "why": why}


def _codec() -> tuple[Any, Any]:
    from consumer.events.codec import Codec
    from consumer.events.schema_registry import SchemaRegistry

    settings = context.any_settings()
    if not settings.schema_registry_url:
        raise Stop("SCHEMA_REGISTRY_URL is not set; without it events carry their schema's fingerprint", 2)
    registry = SchemaRegistry(settings.schema_registry_url)
    return Codec(registry, settings.topic_prefix), registry


def _style(one: Document) -> str:
    return {"registered": "green", "missing": "yellow"}.get(one["state"], "red")
