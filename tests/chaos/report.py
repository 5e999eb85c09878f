"""What came of a run: for people, as Markdown for docs/reliability.md, and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.run import Report
from tests.end_to_end.verdict import Wrong

Row = tuple[str, str]


def rows(report: Report) -> Iterator[Row]:
    verdict, recovery = report.verdict, report.recovery
    yield "requests (distinct request_ids)", f"{verdict.requests:,}"
    yield "records on the topic, with retries, conflicts and poison", f"{verdict.records:,}"
    yield "faults", f"{sum(report.journal.counts().values()):,}"
    yield "outcomes", ", ".join(f"{kind} {count:,}" for kind, count in verdict.outcomes.most_common())
    yield "models registered", f"{verdict.models:,}"
    yield "dead letters", f"{verdict.dead_letters:,}"
    for wrong in Wrong:
        yield str(wrong), f"{len(verdict.found[wrong]):,}"
    yield "events delivered again, byte for byte", f"{verdict.repeated_events:,}"
    if report.after_reset is not None:
        again = report.after_reset
        repeated = again.repeated_events - verdict.repeated_events
        yield "announced again after the reset of offsets, byte for byte", f"{repeated:,}"
        yield "violations after the reset", f"{len(again.violations):,}"
    yield "trainings started", f"{verdict.trainings:,}"
    yield "trainings started again", f"{recovery.repeated:,}"
    yield "work repeated", f"{recovery.repeated_s:.0f} s"
    if recovery.kills:
        yield "work lost per kill -9 of a worker", f"{sum(recovery.lost_s) / recovery.kills:.1f} s"
    yield "kill -9 of a worker to the next start of what it trained", _quantiles(recovery.running_s)
    yield "the same, where Kafka and MongoDB were well then and for a lease before", _quantiles(recovery.undisturbed_s)
    yield "the same, of what waited in it, its place in the queue included", _quantiles(recovery.waiting_s)
    yield "committed offsets looked at", f"{report.samples:,} times"


def faults(report: Report) -> list[Row]:
    return [(name, str(count)) for name, count in sorted(report.journal.counts().items())]


def show(report: Report, console: Console) -> None:
    for title, lines in (("Verdict", [*rows(report)]), ("Faults", faults(report))):
        table = Table(title=title, title_justify="left")
        table.add_column("what")
        table.add_column("how much", justify="right")
        for row in lines:
            table.add_row(*row)
        console.print(table)
    if report.left_out:
        console.print(f"left out: {', '.join(sorted(report.left_out))}")
    for what in report.violations[:50]:
        console.print(what, style="red", markup=False)
    console.print(f"seed {report.options.seed}; seconds: {report.took_s}; {machine()}", markup=False)


def markdown(report: Report) -> str:
    lines = [f"`{command(report)}`, {machine()}:", ""]
    lines += _table(("what", "how much"), [*rows(report)])
    lines += ["", *_table(("fault", "times"), faults(report))]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    recovery = report.recovery
    return {
        "command": command(report),
        "machine": machine(),
        "verdict": dict(rows(report)),
        "violations": report.violations,
        "faults": dict(report.journal.counts()),
        "left_out": report.left_out,
        "took_s": report.took_s,
        "injected": dict(report.plan.injected),
        "recovery": {
            "running_s": recovery.running_s,
            "undisturbed_s": recovery.undisturbed_s,
            "waiting_s": recovery.waiting_s,
            "lost_s": recovery.lost_s,
        },
    }


def command(report: Report) -> str:
    options = report.options
    asked = {
        "seed": options.seed,
        "requests": options.requests,
        "faults": options.faults,
        "minutes": f"{options.minutes:g}",
        "delivery": options.delivery,
        "group-protocol": options.group_protocol,
        "brokers": options.brokers,
    }
    given = [f"--{name} {value}" for name, value in asked.items()]
    return " ".join(["python -m tests.chaos", *given, *([] if options.reset else ["--no-reset"])])


def machine() -> str:
    return f"{datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _table(head: Row, lines: Sequence[Row]) -> list[str]:
    return [f"| {head[0]} | {head[1]} |", "|---|---:|", *(f"| {what} | {much} |" for what, much in lines)]


def _quantiles(values: Sequence[float]) -> str:
    if not values:
        return "none"
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99))
    return f"p50 {p50:.1f} s, p99 {p99:.1f} s, of {len(ordered)}"
