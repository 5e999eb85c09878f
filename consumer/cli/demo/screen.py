"""What the demo shows: live progress on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from consumer.cli.output import STYLES, console, duration, on_terminal, one_line, write

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from consumer.client import Event

Show = Callable[["DemoJob"], None]

REFRESHES_A_SECOND = 8
INDENT = 3
BAR, LONG_BAR = 6, 16
STARTING = "the worker starts: imports scikit-learn, forks trainers, joins the group"
TRAINED = ("EVALUATING", "REGISTERING", "REGISTERED")
WORDS = {"": "waiting", "ACCEPTED": "queued", "STARTED": "starting", "REGISTERING": "storing"}


@dataclass(slots=True)
class DemoJob:
    """A request of the demo, and what its events have said so far. `told` is said in place of its last message."""

    request_id: str
    model_name: str
    algorithm: str
    told: str = ""
    state: str = ""
    fraction: float | None = None
    attempt: int = 1
    message: str = ""
    accuracy: float | None = None
    version: str = ""
    began_at: datetime | None = None
    changed_at: datetime = datetime.fromtimestamp(0, UTC)
    terminal_events: set[str] = field(default_factory=set)

    def take(self, event: Event) -> bool:
        """Note an event; False if it says nothing new, since the job had ended before."""
        if event["state"] in STYLES:
            self.terminal_events.add(event["event_id"])
        if self.ended:
            return False
        self.state, self.attempt, self.changed_at = event["state"], event["attempt"], event["occurred_at"]
        self.message = event["error"]["message"] if event["error"] else event["message"]
        self.accuracy = event["metrics"].get("accuracy")
        if self.state in ("ACCEPTED", "STARTED"):
            self.fraction = None
        elif self.state == "TRAINING":
            self.fraction = event["fraction"]
        elif self.state in TRAINED:
            self.fraction = 1.0
        if self.state == "STARTED" and self.began_at is None:
            self.began_at = self.changed_at
        return True

    @property
    def ended(self) -> bool:
        return self.state in STYLES

    @property
    def elapsed_s(self) -> float:
        """Since it was first started, to its end or to now."""
        if self.began_at is None:
            return 0.0
        return ((self.changed_at if self.ended else datetime.now(UTC)) - self.began_at).total_seconds()


class Screen:
    """Where the demo is told."""

    def __init__(self) -> None:
        self._console = console()
        self._live = on_terminal()

    def title(self, text: str, rest: str) -> None:
        self._print((text, "bold cyan"), f"  {rest}")

    def act(self, number: int, title: str, rest: str) -> None:
        self._print("")
        self._print((f"{number}  {title}", "bold cyan"), (f"  {rest}", "dim"))

    def fact(self, name: str, text: str) -> None:
        self._print((f"{name:<10}", "dim"), text, indent=INDENT)

    def say(self, text: str, style: str = "") -> None:
        self._print((text, style), indent=INDENT)

    def good(self, text: str) -> None:
        self._print(("✓ ", "bold green"), text, indent=INDENT)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
        if not self._live:
            for row in (headings, *rows):
                write(" " * INDENT + "\t".join(map(one_line, row)))
            return
        from rich.padding import Padding
        from rich.text import Text

        table = _grid(headings, right)
        for row in rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        self._console.print(Padding(table, (0, 0, 0, INDENT)))

    @contextmanager
    def matrix(self, jobs: Sequence[DemoJob]) -> Iterator[Show]:
        """Show jobs as they go, algorithms by models; gives what is to be called when one has changed."""

        def line(job: DemoJob) -> None:
            if job.ended:
                said = job.message if job.accuracy is None else f"{job.version} accuracy {job.accuracy:.3f}"
                write(f"   {job.state:<11} {job.model_name} {job.algorithm} {said} {duration(job.elapsed_s)}")

        with self._shown(lambda: _matrix(jobs), line) as show:
            yield show

    @contextmanager
    def follow(self, job: DemoJob) -> Iterator[Show]:
        """Show one job as it goes; in a pipe a line a state, and one a quarter of its training."""
        said: set[tuple[str, int, int]] = set()

        def line(job: DemoJob) -> None:
            step = (job.state, job.attempt, int((job.fraction or 0) * 4))
            if step not in said:
                said.add(step)
                done = f"{job.fraction or 0:4.0%} " if job.state == "TRAINING" else ""
                attempt = f"(attempt {job.attempt}) " if job.attempt > 1 else ""
                write(f"   {job.state:<11} {done}{attempt}{one_line(job.message)}".rstrip())

        with self._shown(lambda: _one(job), line) as show:
            yield show

    @contextmanager
    def _shown(self, render: Callable[[], RenderableType], line: Show) -> Iterator[Show]:
        if not self._live:
            yield line
            return
        from rich.live import Live
        from rich.padding import Padding

        def padded() -> Padding:
            return Padding(render(), (0, 0, 0, INDENT))

        with Live(get_renderable=padded, console=self._console, refresh_per_second=REFRESHES_A_SECOND):
            yield lambda _: None

    def _print(self, *parts: str | tuple[str, str], indent: int = 0) -> None:
        from rich.padding import Padding
        from rich.text import Text

        text = Text.assemble(*parts)
        if self._live:
            self._console.print(Padding(text, (0, 0, 0, indent)))
        else:
            write(" " * indent + text.plain.rstrip())


def _grid(headings: Sequence[str], right: Sequence[str] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=True)
    return table


def _matrix(jobs: Sequence[DemoJob]) -> RenderableType:
    models = list(dict.fromkeys(job.model_name for job in jobs))
    rows: dict[str, dict[str, DemoJob]] = {}
    for job in jobs:
        rows.setdefault(job.algorithm, {})[job.model_name] = job
    table = _grid(["ALGORITHM", *models])
    for column in table.columns[1:]:
        column.min_width = BAR + 5
    for algorithm, cells in rows.items():
        table.add_row(algorithm, *(_cell(cells[model]) if model in cells else "" for model in models))
    if not any(job.state for job in jobs):
        table.caption, table.caption_justify = STARTING, "left"
    return table


def _cell(job: DemoJob) -> Text:
    from rich.text import Text

    if job.state == "REGISTERED":
        accuracy = "" if job.accuracy is None else f" {job.accuracy:.3f}"
        return Text.assemble(("✓ ", "green"), (f"{job.version:<3}", "bold"), (accuracy, "green"))
    if job.ended:
        return Text(job.state, STYLES[job.state])
    if job.state == "TRAINING" and job.fraction:
        return _bar(job.fraction)
    return Text(_word(job), "dim" if job.state in ("", "ACCEPTED") else "cyan")


def _bar(fraction: float | None, width: int = BAR) -> Text:
    from rich.text import Text

    done = fraction or 0.0
    full = round(done * width)
    return Text.assemble(("━" * full, "cyan"), ("━" * (width - full), "bright_black"), (f" {done:4.0%}", "cyan"))


def _one(job: DemoJob) -> RenderableType:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{job.state if job.ended else _word(job):<11}", STYLES.get(job.state, "cyan"))
    text.append(_bar(job.fraction, LONG_BAR))
    text.append(f" {job.elapsed_s:3.0f} s  ", "dim")
    if job.attempt > 1:
        text.append(f"attempt {job.attempt}  ", "magenta")
    text.append(one_line(job.told or job.message), "dim")
    return text


def _word(job: DemoJob) -> str:
    return WORDS.get(job.state, job.state.lower())
