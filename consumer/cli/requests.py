"""`tensorfleet watch`, `cancel` and `requests`: follow, stop and list requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.following import follow
from consumer.cli.output import (
    STYLES,
    Document,
    Json,
    Project,
    Stop,
    TableColumn,
    column,
    complain,
    minute,
    show_rows,
    write,
    write_json,
)
from consumer.cli.values import of_model, seconds, user_name

if TYPE_CHECKING:
    from consumer.client import Client, Event
    from pipeline.ledger import RequestRow

CANCELLED = "CANCELLED"
ACCEPTED, WAITING = "ACCEPTED", "WAITING"
"""ACCEPTED: a worker owns the request, waiting or in training. WAITING: it was released, and no worker owns it."""


def watch(
    request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST_ID...")],
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop waiting after this time.  [default: never]")
    ] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Follow requests to their end; exit 0 only if all are registered."""
    with context.client(project=context.scope(project)) as client:
        follow(client, request_ids, timeout_s=seconds(timeout, "--timeout"), as_json=as_json)


def cancel(
    request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST_ID...")],
    reason: Annotated[str, typer.Option(help="The reason, which the outcome shows.")] = "",
    wait: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait for how it ends.")] = "5s",
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Stop requests, whether they wait or run, and say how they end; exit 1 if one had ended otherwise."""
    wait_s = seconds(wait, "--wait")
    with context.client(project=context.scope(project)) as client:
        asked_at = datetime.now(UTC)
        for request_id in request_ids:
            client.cancel(request_id, reason, user_name())
        latest = _latest(client, request_ids, wait_s)
    refused = []
    for request_id in dict.fromkeys(request_ids):
        event = latest.get(request_id)
        said = _cancelled(request_id, event, asked_at)
        if as_json:
            write_json(
                {"request_id": request_id, "asked": "CANCEL", "state": event and event["state"], "message": said}
            )
        if event is not None and event["state"] in STYLES and event["state"] != CANCELLED:
            refused.append(said)
        elif not as_json:
            write(said)
    for said in refused[:-1]:
        complain(said)
    if refused:
        raise Stop(refused[-1], 1)


def _latest(client: Client, request_ids: Sequence[str], wait_s: float | None) -> Mapping[str, Event]:
    """The last event of each request that has one; the terminal one if it comes in time."""
    latest: dict[str, Event] = {}
    with suppress(TimeoutError):
        for event in client.watch(*request_ids, timeout_s=wait_s):
            latest[event["request_id"]] = event
    return latest


def _cancelled(request_id: str, event: Event | None, asked_at: datetime) -> str:
    """A line on how a cancel went, from the request's last event."""
    if event is None:
        return (
            f"asked to stop {request_id}, which no worker has accepted yet; if it comes within 7 days it is cancelled"
        )
    state, at = event["state"], event["occurred_at"]
    if state not in STYLES:
        return f"asked to stop {request_id}, which was {state}; `tensorfleet watch {request_id}` tells how it ends"
    when = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if state == CANCELLED:
        return f"{request_id} {'had been' if at < asked_at else 'was'} cancelled at {when}"
    return f"{request_id} was not stopped: it {'had ended' if at < asked_at else 'ended'} as {state} at {when}"


def requests(
    project: Project = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Of this model only; PROJECT/NAME too.")] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Without those that have ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 50,
    as_json: Json = False,
) -> None:
    """List requests that a worker has seen, the newest first."""
    project, model = of_model(model, context.scope(project))
    stores = context.stores()
    rows = stores.ledger.requests(project=project, model_name=model, unfinished=unfinished, limit=limit)
    columns = (
        column("REQUEST", "request_id", whole=True),
        column("STATE", "state", style=lambda one: STYLES.get(one["state"], "cyan"), whole=True),
        TableColumn("MODEL", lambda one: f"{one['project']}/{one['model_name']}", style="bold"),
        column("ALGORITHM", "algorithm", extra=True),
        column("DATASET", "dataset_name", extra=True),
        TableColumn("CLAIMED", lambda one: minute(one["claimed_at"]), style="dim", whole=True, extra=True),
        TableColumn("WHY", _why, fold=True),
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
        "state": outcome.kind.value if outcome else ACCEPTED if owner else WAITING,
        "claimed_at": row.claimed_at,
        "ended_at": outcome.at if outcome else None,
        "worker_id": outcome.worker_id if outcome else owner.worker_id if owner else None,
        "attempt": outcome.attempt if outcome else None,
        "error": {"kind": outcome.error.kind, "message": outcome.error.message} if outcome and outcome.error else None,
    }


def _why(one: Document) -> str:
    return "" if one["error"] is None else str(one["error"]["message"])
