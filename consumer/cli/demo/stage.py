"""What the acts of the demo are played with: a worker that can be killed, a client, and all that it hears.

scikit-learn is imported where it is used: the worker starts while we import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from consumer.cli.demo.customers import CUSTOMERS, write_customers
from consumer.cli.demo.screen import DemoJob
from consumer.cli.letters import read_letters
from consumer.cli.output import Stop, one_line
from consumer.client import Client, Event
from consumer.embedded import WorkerProcess, settle_past
from consumer.kafka.topic_reader import Reader
from consumer.settings import Settings
from pipeline.jobs import Outcome, RegisteredModel
from schemas import RecordType

if TYPE_CHECKING:
    from consumer.stores import Stores
    from pipeline.model_files.model_file import Predictions

PROJECT = "demo"
ACT_S = 150.0
"""A step that takes longer has failed; on two busy cores the longest takes a fifth of it."""
ANSWER_S = 10.0
DRAIN_S = 10.0
ALL = 10_000

HYPERPARAMETERS = {"neural_network": {"max_iter": 300}}


class DemoStage:
    """Owned by the main thread: the workers that it starts end with it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = Client(settings)
        self.topics = self.client.topics
        self.log = settings.data_dir / "worker.log"
        self.rows = settings.data_dir / "rows.csv"
        self.jobs: dict[str, DemoJob] = {}

    @contextmanager
    def opened(self) -> Iterator[DemoStage]:
        """With a worker, and all progress events from now on."""
        self.log.unlink(missing_ok=True)
        self.start_worker()
        try:
            self.stores.prepare()
            settle_past(self.stores)
            write_customers(self.settings.data_dir / "datasets" / f"{CUSTOMERS}.csv")
            with self.client, self._reader(RecordType.TRAINING_PROGRESS) as self._progress:
                yield self
        finally:
            self._stop_worker()

    @cached_property
    def stores(self) -> Stores:
        from consumer.stores import open_stores

        return open_stores(self.settings)

    def start_worker(self) -> WorkerProcess:
        self.worker = WorkerProcess(self.settings, self.log)
        return self.worker

    def submit(self, model: str, algorithm: str, **hyperparameters: Any) -> DemoJob:
        """Ask for a version of the model that is named like its dataset."""
        request_id = self.client.submit(
            algorithm=algorithm,
            dataset_name=model,
            model_name=model,
            project=PROJECT,
            user="demo",
            hyperparameters=hyperparameters or HYPERPARAMETERS.get(algorithm, {}),
        )
        job = self.jobs[request_id] = DemoJob(request_id, model, algorithm)
        return job

    def watch(
        self,
        jobs: Sequence[DemoJob],
        show: Callable[[DemoJob], None] = lambda _: None,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take events, and show whom they are about, until all these jobs have ended or `until` holds."""
        deadline = time.monotonic() + ACT_S
        while not until() and not all(job.ended for job in jobs):
            if (job := self._next_told()) is not None:
                show(job)
            if self.worker.exit_code is not None:
                raise Stop(f"the worker ended with exit code {self.worker.exit_code}; {self._last_line}", 1)
            if time.monotonic() > deadline:
                waiting = [f"{job.model_name} {job.algorithm}" for job in jobs if not job.ended]
                raise Stop(f"no end after {ACT_S:.0f} s: {', '.join(waiting)}; {self._last_line}", 1)

    def registered(self) -> list[RegisteredModel]:
        """The versions that these jobs have got."""
        found = self.stores.registry.list(project=PROJECT, limit=ALL)
        return [one for one in found if one.request_id in self.jobs]

    def outcomes(self) -> list[Outcome]:
        """The outcomes of these jobs in the ledger."""
        rows = self.stores.ledger.requests(project=PROJECT, limit=ALL)
        return [row.outcome for row in rows if row.outcome and row.request_id in self.jobs]

    def announced(self) -> list[Event]:
        """Everything on the topic model-registered."""
        found: list[Event] = []
        with self._reader(RecordType.MODEL_REGISTERED) as reader:
            for delivered in reader:
                if delivered is not None:
                    found.append(self.client.codec.decode(delivered.value(), RecordType.MODEL_REGISTERED))
                elif reader.at_end:
                    break
        return found

    def dead_letters(self, job: DemoJob) -> int:
        letters = read_letters(self.client, self.settings)
        return sum(letter.request_id == job.request_id for letter in letters)

    def predict(self, registered: RegisteredModel) -> Predictions:
        """What the stored model says of `rows`."""
        from pipeline.features.frames import frame_of
        from pipeline.model_files import model_file
        from pipeline.reading.files import read_table
        from pipeline.reading.tables import canonical

        frame = frame_of(canonical(read_table(self.rows, self.rows.name)))
        with TemporaryDirectory(prefix="tensorfleet-") as folder:
            file = Path(folder, "model.zip")
            self.stores.artifacts.fetch(registered.model.artifact_uri, file)
            return model_file.load(file, registered.model.artifact_sha256).predict(frame)

    @contextmanager
    def _reader(self, record: RecordType) -> Iterator[Reader]:
        """Of all partitions, from their beginning."""
        with Reader(self.settings, self.topics.of(record), ANSWER_S) as reader:
            reader.start(range(reader.partitions))
            yield reader

    @cached_property
    def _deliveries(self) -> Iterator[Any]:
        return iter(self._progress)

    def _next_told(self) -> DemoJob | None:
        """The job that the next event is about, if one has come."""
        delivered = next(self._deliveries)
        if delivered is None:
            return None
        event = self.client.codec.decode(delivered.value(), RecordType.TRAINING_PROGRESS)
        job = self.jobs.get(event["request_id"])
        if job is None or not job.take(event):
            return None
        if job.state == "REGISTERED":
            job.version = self.stores.registry.find([job.request_id])[job.request_id].version
        return job

    def _stop_worker(self) -> None:
        try:
            self.worker.drain(DRAIN_S)
        finally:
            self.worker.kill()

    @property
    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return f"{self.log} ends with: {one_line(lines[-1])}" if lines else f"{self.log} is empty"
