"""`tensorfleet submit`: sends requests for trainings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.following import follow
from consumer.cli.output import Json, Stop, note, numbered, show_fields, shown, write, write_json
from consumer.cli.values import WRONG_USE, content_of, hyperparameter, pair, seconds, size_bytes, tried, user_name

if TYPE_CHECKING:
    from consumer.client import Event
    from pipeline.jobs import TrainingRequest
    from pipeline.training.dry_run import Plan

Wanted = Mapping[str, Mapping[str, Any]]
"""The fields of requests, by their places in a file; that of a request of options alone is empty."""


def submit(
    algorithm: Annotated[
        str | None, typer.Option("--algorithm", "-a", help="See `tensorfleet algorithms list`.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="See `tensorfleet datasets list`.")] = None,
    model_name: Annotated[
        str | None, typer.Option("--model-name", "-m", help="Its versions count v1, v2, …  [default: the job's name]")
    ] = None,
    job_name: Annotated[str | None, typer.Option(help="[default: the model's name, else DATASET-ALGORITHM]")] = None,
    project: Annotated[
        str | None, typer.Option(metavar="NAME", help="[default: TENSORFLEET_PROJECT, else default]")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The column to predict.  [default: the dataset's own, else its last]")
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option(help="A column to learn from; repeat it.  [default: all]")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="NAME=VALUE", help="A hyperparameter; the value is JSON, else text."),
    ] = None,
    tries: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="NAME=VALUES",
            help="Search this hyperparameter: 1,2,5 or 0.1..10, with :log or in steps such as 1..9:2; repeat it.",
        ),
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="STRATEGY", help="grid, random, halving or optuna.  [default: grid]")
    ] = None,
    candidates: Annotated[int | None, typer.Option(help="Try at most this many candidates.")] = None,
    scoring: Annotated[
        str | None, typer.Option(help="The metric that picks the best candidate.  [default: accuracy, or r2]")
    ] = None,
    search_time: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Start no more candidates after this time; the best so far is taken."),
    ] = None,
    test_size: Annotated[float | None, typer.Option(help="The share of rows held out.  [default: 0.2]")] = None,
    stratify: Annotated[
        bool | None,
        typer.Option("--stratify/--no-stratify", help="Give both parts the same share of each class.  [default: yes]"),
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Keep rows with the same value here in one part.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Test on the latest rows by this column (dates or numbers).")
    ] = None,
    time_gap: Annotated[
        int | None,
        typer.Option(
            metavar="ROWS", help="Leave out this many rows, by time, between training and test.  [default: 0]"
        ),
    ] = None,
    cv: Annotated[
        int | None, typer.Option(help="Folds scored inside the training part; by time, each after what it learns from.")
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Find the importance of columns and a learning curve too; page and card go into the file."
        ),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Random seed of split and algorithm.  [default: 42]")] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Take the result of an equal earlier training, if any.")
    ] = False,
    max_time: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop the training after this time: 90, 10m, 2h.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Stop the training above this memory: 512MiB, 2GB.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TEXT", help="Kept with the model and its event; repeat it.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Your own id: the same one never trains twice.  [default: a new one]")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Requests as JSON, one object a line; `-` is standard input."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the request and show what would be trained; train nothing.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow to the end; exit 0 only if registered.")] = False,
    as_json: Json = False,
) -> None:
    """Ask for a model to be trained, or for many, and show the request's id.

    Options given together with --file hold for every request in it.
    """
    evaluation = {
        "test_size": test_size,
        "stratify": stratify,
        "group_column": group_column,
        "time_column": time_column,
        "time_gap": time_gap,
        "cv": cv,
        "report": report or None,
    }
    searching = {
        "strategy": search,
        "space": list(map(tried, tries or ())) or None,
        "max_candidates": candidates,
        "scoring": scoring,
        "time_budget_s": seconds(search_time, "--search-time"),
    }
    given: dict[str, Any] = {
        "algorithm": algorithm,
        "dataset_name": dataset,
        "model_name": model_name,
        "job_name": job_name,
        "project": project,
        "target_column": target,
        "features": feature or None,
        "hyperparameters": dict(map(hyperparameter, parameter or ())) or None,
        "search": {name: value for name, value in searching.items() if value is not None} or None,
        "evaluation": {name: value for name, value in evaluation.items() if value is not None} or None,
        "seed": seed,
        "max_training_time_s": seconds(max_time, "--max-time"),
        "max_memory_bytes": size_bytes(max_memory, "--max-memory"),
        "reuse": reuse or None,
        "tags": dict(pair(one, "--tag") for one in tag or ()) or None,
        "request_id": request_id,
    }
    given = {name: value for name, value in given.items() if value is not None}
    scope = context.scope(project)
    own = {} if scope is None else {"project": scope}
    wanted = {place: {**own, **one} for place, one in _requests(given, file).items()}
    for place, one in wanted.items():
        if scope is not None and one["project"] != scope:
            limited = f"limited to project {scope} (--project, TENSORFLEET_PROJECT), but"
            raise Stop(f"{limited} {place or 'a request'} names {one['project']}", WRONG_USE)
    if dry_run:
        _plan(wanted, as_json=as_json)
    else:
        _send(wanted, watch=watch, as_json=as_json)


def _plan(wanted: Wanted, *, as_json: bool) -> None:
    """Show what each request would train on; a fault that would end a request ends the command."""
    for place, one in wanted.items():
        with _about(place):
            request = _request(one)
            planned = _planned(request)
            found = planned.to_document()
        lines = {
            "algorithm": f"{found['algorithm']} ({found['task']})",
            "target": found["target_column"],
            "classes": shown(found["classes"]),
            "split": str(planned.split),
            "columns": {column["name"]: f"{column['role']} ({column['type']})" for column in found["columns"]},
            "left out": found["dropped"],
            "prepared": f"{found['prepared_columns']:,} columns",
            "hyperparameters": {name: shown(value) for name, value in sorted(found["hyperparameters"].items())},
            "search": f"{found['candidates']:,} candidates" if found["candidates"] else "",
            "warnings": numbered(found["warnings"]),
        }
        title = f"{request.project}/{request.model_name}"
        show_fields(found, {name: value for name, value in lines.items() if value}, as_json=as_json, title=title)


def _planned(request: TrainingRequest) -> Plan:
    from pipeline.datasets.builtin import BUILTINS, BuiltinSource
    from pipeline.features.frames import frame_of
    from pipeline.reading.tables import last_target
    from pipeline.training.dry_run import plan

    builtin = request.dataset_name in BUILTINS
    loaded = (BuiltinSource() if builtin else context.stores().datasets).load(request.dataset_name)
    target = loaded.target_column or last_target(loaded.table)
    return plan(request, frame_of(loaded.table), target)


def _send(wanted: Wanted, *, watch: bool, as_json: bool) -> None:
    settings = context.kafka_settings()
    requests = []
    for place, one in wanted.items():
        with _about(place):
            requests.append(_request(one))
    named = [one["request_id"] for one in wanted.values() if one.get("request_id")]
    began = datetime.now(UTC)
    with context.client(settings) as client:
        before = client.latest(named) if watch and named else {}
        request_ids = client.submit_all(requests)
        if watch:
            for event in before.values():
                note(_sent_before(event))
            follow(client, request_ids, since=None if named else began, as_json=as_json)
            return
    for request in requests:
        if as_json:
            write_json({"request_id": request.request_id, "project": request.project, "model_name": request.model_name})
        else:
            write(request.request_id)


@contextmanager
def _about(place: str) -> Iterator[None]:
    """Prefix a RejectedError with the place of the request in its file, if it is of a file."""
    from pipeline.errors import RejectedError

    try:
        yield
    except RejectedError as error:
        raise RejectedError(f"{place}: {error}" if place else str(error)) from error


def _request(fields: Mapping[str, Any]) -> TrainingRequest:
    """The request with these fields.  Raises RejectedError if it is none, or if no record can hold it."""
    from consumer.events.codec import Codec
    from consumer.events.errors import UndecodableError
    from consumer.events.requests import check_request_id, to_avro
    from consumer.new_requests import training_request
    from pipeline.errors import RejectedError
    from schemas import RecordType

    request = training_request({"user": user_name(), **fields})
    try:
        check_request_id(request.request_id)
        Codec().encode(RecordType.TRAINING_REQUEST, to_avro(request))
    except (UndecodableError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RejectedError(f"a request cannot be written: {error}") from error
    return request


def _sent_before(event: Event) -> str:
    return (
        f"request {event['request_id']} was sent before and is {event['state']}: a request_id is trained once, and "
        "that one is followed; if this one differs, it becomes a dead letter (`tensorfleet dlq list`)"
    )


def _requests(given: Mapping[str, Any], file: str | None) -> dict[str, dict[str, Any]]:
    """The fields of each request by its place: those of the file, overridden by the options, or the options alone."""
    if file is None:
        missing = [
            flag for flag, name in (("--algorithm", "algorithm"), ("--dataset", "dataset_name")) if name not in given
        ]
        if missing:
            raise Stop(f"{' and '.join(missing)} must be given (or --file); see `tensorfleet submit --help`", WRONG_USE)
        return {"": dict(given)}
    found = _parsed(content_of(file), "standard input" if file == "-" else file)
    if "request_id" in given and len(found) > 1:
        raise Stop(f"--request-id names one request, but there are {len(found)}", WRONG_USE)
    return {place: {**one, **given, **_merged(one, given)} for place, one in found.items()}


def _merged(one: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    maps = [name for name in ("hyperparameters", "search", "evaluation", "tags") if one.get(name) and name in given]
    return {name: {**one[name], **given[name]} if isinstance(one[name], dict) else one[name] for name in maps}


def _parsed(content: bytes, place: str) -> dict[str, dict[str, Any]]:
    """Parse one JSON object, a list of objects, or one object per line; by the place of each, to name it."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise Stop(f"{place} is not valid JSON: it is not in UTF-8", WRONG_USE) from error
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        lines = {f"{place}, line {number}": line for number, line in enumerate(text.splitlines(), 1) if line.strip()}
        found = {where: _line(line, where) for where, line in lines.items()}
    else:
        found = {place: whole}
        if isinstance(whole, list):
            found = {f"{place}, request {number}": one for number, one in enumerate(whole, 1)}
    for where, one in found.items():
        if not isinstance(one, dict):
            raise Stop(f"{where} is not a JSON object", WRONG_USE)
    if not found:
        raise Stop(f"{place} holds no request", WRONG_USE)
    return found


def _line(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise Stop(f"{place} is not valid JSON: {error}", WRONG_USE) from error
