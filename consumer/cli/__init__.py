"""Defines the command line, `tensorfleet`: one module per command or group of commands.

The modules are light, since `--help` loads all of them; Kafka clients, stores and models are imported where they are
used, mostly in `consumer.cli.context`.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from consumer.cli import (
    algorithms,
    artifacts,
    datasets,
    demo,
    dev,
    dlq,
    doctor,
    models,
    requests,
    schemas,
    submit,
    topics,
    worker,
)
from consumer.cli.output import Stop, complain

PROGRAM = "tensorfleet"
DONE, FAILED, WRONG_USE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    help="Train, version and register machine learning models, each exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", rich_help_panel="Run")(demo.demo)
app.command("dev", rich_help_panel="Run")(dev.dev)
app.command("worker", rich_help_panel="Run")(worker.worker)
app.command("doctor", rich_help_panel="Run")(doctor.doctor)
app.command("submit", rich_help_panel="Train")(submit.submit)
app.command("watch", rich_help_panel="Train")(requests.watch)
app.command("cancel", rich_help_panel="Train")(requests.cancel)
app.command("requests", rich_help_panel="Train")(requests.requests)
app.add_typer(models.app, name="models", rich_help_panel="Look and use")
app.add_typer(datasets.app, name="datasets", rich_help_panel="Look and use")
app.add_typer(algorithms.app, name="algorithms", rich_help_panel="Look and use")
app.add_typer(dlq.app, name="dlq", rich_help_panel="Operate")
app.add_typer(artifacts.app, name="artifacts", rich_help_panel="Operate")
app.add_typer(topics.app, name="topics", rich_help_panel="Operate")
app.add_typer(schemas.app, name="schemas", rich_help_panel="Operate")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        commit = Path(__file__).parents[1] / "COMMIT"
        build = commit.read_text().strip() if commit.is_file() else "a checkout"
        sys.stdout.write(f"{PROGRAM} {version('tensorfleet-worker')} ({build}), Python {platform.python_version()}\n")
        raise typer.Exit


@app.callback()
def _all(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """What all commands share."""


def program() -> NoReturn:
    """Run one command as this process, and end it at once with the exit code.

    At the usual end of a program MongoDB's driver waits up to half a second for its threads.
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed or refused, 2 wrong use, 3 a service is unreachable."""
    try:
        code = app(args=arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        stop = _explained(error)
        if stop is None:
            raise
        if stop.message:
            complain(stop.message)
        return stop.code


def _explained(error: Exception) -> Stop | None:
    """The line and the exit code for an error that is not a bug."""
    if isinstance(error, Stop):
        return error
    if isinstance(error, typer.TyperException):
        if not error.format_message():  # no arguments: help was shown
            return Stop("", WRONG_USE)
        path = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        return Stop(f"{error.format_message().rstrip('.')}; see `{path} --help`", WRONG_USE)
    from consumer.events.errors import MissingTopicsError
    from consumer.settings import SettingsError
    from pipeline.errors import (
        AccessDeniedError,
        CorruptArtifactError,
        NotFoundError,
        RejectedError,
        TransientError,
        WorseError,
    )

    if isinstance(error, TransientError | AccessDeniedError):
        return Stop(f"{error}; `{PROGRAM} doctor` looks at all services", UNREACHABLE)
    if isinstance(error, TimeoutError):
        return Stop(str(error), UNREACHABLE)
    if isinstance(error, WorseError | CorruptArtifactError):
        return Stop(str(error), FAILED)
    if isinstance(error, SettingsError | MissingTopicsError | RejectedError | NotFoundError):
        return Stop("; ".join(str(error).splitlines()), WRONG_USE)
    return None
