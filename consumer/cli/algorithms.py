"""`tensorfleet algorithms`: lists the algorithms and their hyperparameters."""

from __future__ import annotations

import typer

from consumer.cli.output import Json, TableColumn, column, on_terminal, show_rows, write, write_json

app = typer.Typer(help="What models can be trained: list, show.", no_args_is_help=True)


@app.command("list")
def list_algorithms(as_json: Json = False) -> None:
    """List the algorithms."""
    from pipeline.algorithms import catalogue

    columns = (
        column("ALGORITHM", "name", style="bold"),
        column("LEARNS", "type"),
        column("DESCRIPTION", "description", fold=True),
        TableColumn("HYPERPARAMETERS", lambda one: str(len(one["hyperparameters"])), right=True, style="dim"),
    )
    show_rows((one.to_document() for one in catalogue().values()), columns, as_json=as_json)


@app.command()
def show(name: str, as_json: Json = False) -> None:
    """Show an algorithm's hyperparameters: what each takes, and its default."""
    import json

    from pipeline.algorithms import find

    document = find(name).to_document()
    if as_json:
        write_json(document)
        return
    if on_terminal():
        write(f"{document['name']}: {document['description']} ({document['type']})\n")
    columns = (
        column("HYPERPARAMETER", "name", style="bold"),
        TableColumn(
            "DEFAULT", lambda one: one["default"] if isinstance(one["default"], str) else json.dumps(one["default"])
        ),
        column("TAKES", "accepts", fold=True),
    )
    show_rows(
        ({"name": name, **values} for name, values in document["hyperparameters"].items()), columns, as_json=False
    )
