"""Follows requests to their end: bars on a terminal, one line per event in a pipe, events with --json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import typer

from consumer.cli.output import (
    STYLES,
    Stop,
    complain,
    console,
    duration,
    note,
    on_terminal,
    one_line,
    shown,
    write,
    write_json,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from consumer.client import Client, Event

REGISTERED = "REGISTERED"
FIRST_METRICS = ("accuracy", "f1", "r2", "rmse", "train_accuracy", "test_accuracy")
INTERRUPTED = 130
NAMED = 10
"""The most requests whose ids are shown above the bars, which show model names."""


class View(Protocol):
    """Shows events as they come."""

    def show(self, event: Event) -> None: ...


def follow(
    client: Client,
    request_ids: Sequence[str],
    *,
    since: datetime | None = None,
    timeout_s: float | None = None,
    as_json: bool = False,
) -> None:
    """Show the requests until all have ended; the command ends with exit code 1 unless all are REGISTERED."""
    ended: dict[str, Event] = {}
    first, *more = request_ids
    try:
        with _view(request_ids, as_json) as view:
            for event in client.watch(first, *more, since=since, timeout_s=timeout_s):
                view.show(event)
                if event["state"] in STYLES:
                    ended[event["request_id"]] = event
    except KeyboardInterrupt:
        _say_how_to_go_on([one for one in request_ids if one not in ended])
        raise typer.Exit(INTERRUPTED) from None
    for request_id in dict.fromkeys(request_ids):
        _conclude(client, ended[request_id], as_json)
    failed = [event for event in ended.values() if event["state"] != REGISTERED]
    if failed:
        for event in failed[:-1]:
            complain(_why(event))
        raise Stop(_why(failed[-1]), 1)


@contextmanager
def _view(request_ids: Sequence[str], as_json: bool) -> Iterator[View]:
    if as_json:
        yield _Objects()
    elif on_terminal():
        if len(request_ids) <= NAMED:
            for request_id in request_ids:
                console().print(f"request {request_id}", style="dim")
        with _progress() as progress:
            yield _Bars(progress, request_ids)
    else:
        yield _Lines(several=len(request_ids) > 1)


class _Objects:
    def show(self, event: Event) -> None:
        write_json({"type": "TrainingProgress", **event})


class _Lines:
    def __init__(self, several: bool) -> None:
        self._several = several

    def show(self, event: Event) -> None:
        parts = [
            event["occurred_at"].astimezone(UTC).strftime("%H:%M:%S"),
            event["request_id"] if self._several else "",
            f"{event['state']:<11}",
            "" if event["fraction"] is None else f"{event['fraction']:4.0%}",
            _steps(event),
            _told(event, alone=not self._several),
        ]
        write(one_line(" ".join(part for part in parts if part)).rstrip())


class _Bars:
    """One bar per request: stage, fraction, message, and the time since its first event."""

    def __init__(self, progress: Progress, request_ids: Sequence[str]) -> None:
        self._progress = progress
        self._tasks = {
            one: progress.add_task(
                one, total=None, stage="WAITING", style="dim", began=None, ended=None, told="for a worker"
            )
            for one in request_ids
        }

    def show(self, event: Event) -> None:
        task = self._tasks[event["request_id"]]
        state, at = event["state"], event["occurred_at"]
        began = self._progress.tasks[task].fields["began"] or at
        ended = at if state in STYLES else None
        told = _steps(event) if ended is None and event["steps"] else _told(event, alone=len(self._tasks) == 1)
        look: dict[str, Any] = {"stage": state, "style": STYLES.get(state, "cyan"), "began": began, "ended": ended}
        if event["fraction"] is not None:
            look |= {"total": 1.0, "completed": event["fraction"]}
        elif ended is not None:
            look |= {"total": 1.0}
        name = f"{event['project']}/{event['model_name']}"
        self._progress.update(task, description=name, told=told, **look)


def _progress() -> Progress:
    from rich.console import RenderableType
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Sign(SpinnerColumn):
        def render(self, task: Task) -> RenderableType:
            if task.fields["ended"] is None:
                return super().render(task)
            return Text("✓" if task.fields["stage"] == REGISTERED else "✗", task.fields["style"])

    class Stage(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.fields['stage']:<11}", task.fields["style"])

    class Percent(ProgressColumn):
        def render(self, task: Task) -> Text:
            known = task.total is not None and task.fields["stage"] not in STYLES
            return Text(f"{task.percentage:3.0f}%" if known else "    ", "cyan")

    class Elapsed(ProgressColumn):
        def render(self, task: Task) -> Text:
            began, ended = task.fields["began"], task.fields["ended"]
            seconds = 0.0 if began is None else max(0.0, ((ended or datetime.now(UTC)) - began).total_seconds())
            minutes, rest = divmod(int(seconds), 60)
            return Text(
                f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}", "dim"
            )

    class Told(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(one_line(task.fields["told"]), "dim", no_wrap=True, overflow="ellipsis")

    class Name(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.description, no_wrap=True, overflow="ellipsis")

    return Progress(
        Sign(),
        Name(Column(min_width=8, max_width=36)),
        Stage(),
        BarColumn(bar_width=24),
        Percent(),
        Elapsed(),
        Told(Column(ratio=1)),
        console=console(),
        expand=True,
    )


def _conclude(client: Client, event: Event, as_json: bool) -> None:
    if event["state"] != REGISTERED:
        return
    registered = client.finished([event])[event["request_id"]].registered
    if registered is None:
        note(f"{event['request_id']} is registered; its event has not arrived on {client.topics.model_registered} yet")
    elif as_json:
        write_json({"type": "ModelRegistered", **registered})
    else:
        _show_model(registered)


def _show_model(registered: Event) -> None:
    project, model, version = (registered[name] for name in ("project", "model_name", "version"))
    reference = f"{model}@{version}" if project == "default" else f"{project}/{model}@{version}"
    metrics, warnings = headline(registered["metrics"]), registered["warnings"] or ()
    if not on_terminal():
        write(f"{reference} {registered['model_id']} {metrics}")
        for warning in warnings:
            write(one_line(f"{reference} warning: {warning}"))
        return
    from rich.table import Table
    from rich.text import Text

    heading = Text.assemble(
        ("✓ ", "bold green"),
        (f"{project}/{model} {version}", "bold"),
        f"  {registered['algorithm']} on {registered['dataset_name']}",
        (f"  trained in {duration(registered['training_time'])}", "dim"),
    )
    out = console()
    out.print(heading)
    out.print(Text(f"  {metrics}"))
    for warning in warnings:
        marked = Table.grid(padding=(0, 1))
        marked.add_row(Text("  !", "yellow"), Text(one_line(warning), "yellow"))
        out.print(marked)
    out.print(Text(f"  tensorfleet models show {reference}", "dim"))


def headline(metrics: Mapping[str, float]) -> str:
    """The most important metrics, as far as there are any."""
    return "  ".join(f"{name} {shown(metrics[name])}" for name in FIRST_METRICS if name in metrics)


def _why(event: Event) -> str:
    error = event["error"] or {"kind": "", "message": event["message"]}
    kind = f" ({error['kind']})" if error["kind"] and error["kind"] != event["state"] else ""
    return f"request {event['request_id']} ended {event['state']}{kind}: {error['message'] or 'no reason was given'}"


def _told(event: Event, alone: bool) -> str:
    """What an event says; not why a request that is followed alone has ended, which `_why` says right after it."""
    if not event["error"]:
        return str(event["message"])
    return "" if alone and event["state"] in STYLES else str(event["error"]["message"])


def _steps(event: Event) -> str:
    return f"{event['step'] or 0}/{event['steps']}" if event["steps"] else ""


def _say_how_to_go_on(request_ids: Sequence[str]) -> None:
    if not request_ids:
        return
    which = request_ids[0] if len(request_ids) == 1 else "REQUEST_ID"
    jobs = "the job goes on" if len(request_ids) == 1 else f"{len(request_ids)} jobs go on"
    note(f"{jobs}: `tensorfleet watch {which}` follows, `tensorfleet cancel {which}` stops it")
