"""`tensorfleet artifacts`: deletes files that trainings have left in the artifact store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli import context
from consumer.cli.output import Document, Json, Project, TableColumn, column, minute, note, show_rows, size
from consumer.cli.values import seconds

if TYPE_CHECKING:
    from pipeline.lifecycle.garbage import Judged

app = typer.Typer(help="Stored model files and checkpoints: delete those that nothing refers to.", no_args_is_help=True)


@app.command("gc")
def collect(
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="Only files older than this, such as 12h or 1d.")
    ] = "1d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Delete artifacts of requests that have ended, which neither their outcome nor the registry names.

    What belongs to a registered version, archived or not, or to a request that has not ended is kept.
    """
    from consumer.embedded import with_stores
    from pipeline.lifecycle.garbage import Collector

    settings = with_stores(context.any_settings())
    stores = context.stores(settings)
    collector = Collector(
        stores.artifacts,
        stores.ledger,
        stores.registry,
        older_than_s=seconds(older_than, "--older-than") or 0.0,
        retention_s=settings.ledger_retention,
        project=context.scope(project),
    )
    seen: Counter[str] = Counter()
    columns = (
        column("REQUEST", "request_id", style="bold"),
        column("WHAT", "what", whole=True),
        TableColumn("SIZE", lambda one: size(one["bytes"]), right=True, whole=True),
        TableColumn("STORED", lambda one: minute(one["stored_at"]), style="dim", whole=True),
        column("URI", "uri", fold=True),
    )
    rows = _rows(collector.collect(dry_run=dry_run), seen, dry_run)
    show_rows(rows, columns, as_json=as_json, none="There is nothing to delete.")
    note(_summary(seen, older_than, dry_run))


def _rows(found: Iterable[Judged], seen: Counter[str], dry_run: bool) -> Iterator[Document]:
    """A row for each piece of garbage; the other artifacts are only counted."""
    for judged in found:
        seen[judged.fate] += 1
        if judged.fate == "garbage":
            piece = judged.piece
            seen["bytes"] += piece.artifact.size_bytes
            yield {
                "request_id": piece.request_id,
                "what": "checkpoint" if piece.sha256 is None else "model file",
                "bytes": piece.artifact.size_bytes,
                "stored_at": piece.artifact.stored_at,
                "uri": piece.artifact.uri,
                "deleted": not dry_run,
            }


def _summary(seen: Counter[str], older_than: str, dry_run: bool) -> str:
    kept = {
        "named by a model": seen["named"],
        f"younger than {older_than}": seen["young"],
        "of requests that have not ended": seen["unfinished"],
        "of requests that the ledger does not know (any more)": seen["unknown"],
    }
    told = ", ".join(f"{count} {why}" for why, count in kept.items() if count) or "none"
    done = "would be deleted" if dry_run else "deleted"
    return f"{seen['garbage']} artifacts, {size(seen['bytes'])}, {done}; kept: {told}"
