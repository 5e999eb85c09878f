"""`tensorfleet watch`, `cancel` and `requests`: what becomes of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.following import follow
from consumer.cli.output import STYLES, Column, Document, Json, Project, column, minute, show_rows, write, write_json
from consumer.cli.values import of_model, seconds, user_name

if TYPE_CHECKING:
    from pipeline.ledger import RequestRow

RUNNING, WAITING = "RUNNING", "WAITING"


def watch(
    request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST_ID...")],
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Wait no longer.  [default: for ever]")
    ] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Follow requests to their end; exit 0 only if all are registered."""
    with context.client(project=context.scope(project)) as client:
        follow(client, request_ids, timeout_s=seconds(timeout, "--timeout"), as_json=as_json)


def cancel(
    request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST_ID...")],
    reason: Annotated[str, typer.Option(help="Shown in the outcome.")] = "",
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Ask for requests to be stopped, whether they wait or run; what has ended stays as it is."""
    with context.client(project=context.scope(project)) as client:
        for request_id in request_ids:
            client.cancel(request_id, reason, user_name())
            if as_json:
                write_json({"request_id": request_id, "asked": "CANCEL"})
            else:
                write(f"asked to stop {request_id}; `tensorfleet watch {request_id}` tells how it ends")


def requests(
    project: Project = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Of this model only; PROJECT/NAME too.")] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Without those that have ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List requests that a worker has seen, the newest first."""
    project, model = of_model(model, context.scope(project))
    stores = context.stores()
    rows = stores.ledger.requests(project=project, model_name=model, unfinished=unfinished, limit=limit)
    columns = (
        column("REQUEST", "request_id", whole=True),
        column("STATE", "state", style=lambda one: STYLES.get(one["state"], "cyan"), whole=True),
        Column("MODEL", lambda one: f"{one['project']}/{one['model_name']}", style="bold"),
        column("ALGORITHM", "algorithm", extra=True),
        column("DATASET", "dataset_name", extra=True),
        Column("CLAIMED", lambda one: minute(one["claimed_at"]), style="dim", whole=True, extra=True),
        Column("WHY", _why, fold=True),
    )
    none = "No worker has seen such a request; those that still wait on the topic are not known here."
    show_rows(map(_document, rows), columns, as_json=as_json, none=none)


def _document(row: RequestRow) -> dict[str, Any]:
    outcome, owner = row.outcome, row.owner
    return {
        "project": "",
        "model_name": "",
        **row.summary,
        "request_id": row.request_id,
        "state": outcome.kind.value if outcome else RUNNING if owner else WAITING,
        "claimed_at": row.claimed_at,
        "ended_at": outcome.at if outcome else None,
        "worker_id": outcome.worker_id if outcome else owner.worker_id if owner else None,
        "attempt": outcome.attempt if outcome else None,
        "error": {"kind": outcome.error.kind, "message": outcome.error.message} if outcome and outcome.error else None,
    }


def _why(one: Document) -> str:
    return "" if one["error"] is None else str(one["error"]["message"])
