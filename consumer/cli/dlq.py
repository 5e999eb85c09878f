"""`tensorfleet dlq`: lists dead letters, shows them, and sends them again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.output import Json, Project, Stop, TableColumn, column, minute, note, show_fields, show_rows, shown
from consumer.cli.values import WRONG_USE, seconds

if TYPE_CHECKING:
    from consumer.cli.letters import Letter, Replay
    from consumer.client import Client

PLACE = re.compile(r"\d+:\d+")

app = typer.Typer(help="Dead letters: list, show, replay.", no_args_is_help=True)

Reason = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="REASON", help="Only those with this reason, such as INVALID_REQUEST; repeat it."),
]


Since = Annotated[str | None, typer.Option("--since", metavar="DURATION", help="Only those of the last 30m, 2d, …")]


@app.command("list")
def list_letters(
    reason: Reason = None,
    since: Since = None,
    project: Project = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest.")] = 1000,
    as_json: Json = False,
) -> None:
    """List the dead letters, the oldest first."""
    settings = context.kafka_settings()
    first = _first(since)

    from consumer.cli.letters import read_letters

    _check(reason)
    with context.client(settings) as client:
        letters = [one for one in _within(read_letters(client, settings), context.scope(project)) if one.at >= first]
        found = [one.to_document() for one in letters if not reason or one.reason in reason]
    found.sort(key=lambda one: one["at"])
    columns = (
        column("PLACE", "place", whole=True),
        TableColumn("SINCE", lambda one: minute(one["at"]), style="dim", whole=True, extra=True),
        column("REASON", "reason", style="yellow", whole=True),
        column("REQUEST", "request_id", whole=True),
        column("WHY", "message", fold=True),
    )
    show_rows(found[-limit:], columns, as_json=as_json, none="There are no dead letters.")


@app.command()
def show(
    which: Annotated[str, typer.Argument(metavar="WHICH", help="PARTITION:OFFSET or a request_id.")],
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Show a dead letter: why it is one, what it says, and all its headers."""
    settings = context.kafka_settings()

    from consumer.cli.letters import read_letters

    with context.client(settings) as client:
        letter = _named(_within(read_letters(client, settings), context.scope(project)), which)[-1]
    document = {**letter.to_document(), "record": letter.record, "headers": dict(letter.texts)}
    given = {name: shown(value) for name, value in (letter.record or {}).items() if value not in (None, {}, "", [])}
    lines: dict[str, str | Mapping[str, str]] = {
        **{name: shown(value) for name, value in letter.to_document().items() if value not in (None, "")},
        "record": given or _start(letter.value),
        "headers": letter.texts,
    }
    show_fields(document, lines, as_json=as_json)


@app.command()
def replay(
    which: Annotated[
        list[str] | None, typer.Argument(metavar="[WHICH]...", help="PARTITION:OFFSET or request_ids.")
    ] = None,
    reason: Reason = None,
    since: Since = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent.")] = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Send dead letters again, as new requests REQUEST_ID.r1, .r2, …; the same one twice changes nothing.

    Bytes that do not decode are sent as they are. The dead letters stay where they are.
    """
    if bool(which) + bool(reason) + everything != 1:
        raise Stop("say which: PARTITION:OFFSET or request_ids, --reason REASON, or --all", WRONG_USE)
    first = _first(since)
    settings = context.kafka_settings()
    ledger, scope = context.stores().ledger, context.scope(project)

    from consumer.cli.letters import planned, read_letters

    _check(reason)
    with context.client(settings) as client:
        letters = sorted(read_letters(client, settings), key=lambda one: one.at)
        within = [one for one in _within(letters, scope) if one.at >= first]
        chosen = [one for one in within if everything or (reason and one.reason in reason)]
        for name in which or ():
            chosen += _named(within, name)
        replays = list(planned(chosen, letters, ledger, client))
        if not dry_run:
            _send(client, replays)
    columns = (
        column("PLACE", "place", whole=True),
        TableColumn("", _outcome, style=lambda one: "green" if one["would_be_sent"] else "yellow", whole=True),
        column("AS", "replayed_as", style="bold", whole=True),
        column("WHY", "why", fold=True),
    )
    show_rows(
        (_document(one, dry_run) for one in replays),
        columns,
        as_json=as_json,
        none="There is no dead letter to replay.",
    )
    if not as_json:
        note(f"{sum(one.sent is not None for one in replays)} {'would be' if dry_run else 'were'} sent")


def _check(reasons: list[str] | None) -> None:
    """Raises Stop for an unknown reason: finding no letters would be misleading."""
    from consumer.events.errors import REASONS

    for unknown in set(reasons or ()) - {*REASONS}:
        raise Stop(f"no dead letter has the reason {unknown}; there are {', '.join(REASONS)}", WRONG_USE)


def _first(since: str | None) -> datetime:
    """The time from which on letters count."""
    ago_s, always = seconds(since, "--since"), datetime.min.replace(tzinfo=UTC)
    try:
        return always if ago_s is None else datetime.now(UTC) - timedelta(seconds=ago_s)
    except OverflowError:
        return always


def _within(letters: Iterable[Letter], project: str | None) -> list[Letter]:
    """The letters of the project; those that do not decode belong to none."""
    return [one for one in letters if project is None or (one.record is not None and one.record["project"] == project)]


def _send(client: Client, replays: list[Replay]) -> None:
    messages = [one.sent for one in replays if one.sent is not None]
    if messages:
        client.send(messages)


def _named(letters: list[Letter], name: str) -> list[Letter]:
    by_place = PLACE.fullmatch(name) is not None
    found = [one for one in letters if name == (one.place if by_place else one.request_id)]
    if not found:
        what = "at" if by_place else "of the request"
        raise Stop(f"there is no dead letter {what} {name}; see `tensorfleet dlq list`", WRONG_USE)
    return found


def _document(one: Replay, dry_run: bool) -> dict[str, Any]:
    return {
        "place": one.letter.place,
        "request_id": one.letter.request_id,
        "sent": one.sent is not None and not dry_run,
        "would_be_sent": one.sent is not None,
        "replayed_as": one.request_id,
        "why": one.why,
    }


def _outcome(one: Any) -> str:
    return "sent" if one["sent"] else "would be sent" if one["would_be_sent"] else "not sent"


def _start(value: bytes | None) -> str:
    return "" if value is None else repr(value[:200])
