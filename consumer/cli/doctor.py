"""`tensorfleet doctor`: checks everything that a worker needs, and says what to do about faults."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from consumer.cli import context
from consumer.cli.output import Json, Stop, console, on_terminal, one_line, size, write, write_json

if TYPE_CHECKING:
    from consumer.settings import Settings
    from consumer.stores import Stores

SPARE_BYTES = 2**30
SKEW_S = 2.0
"""Leases last 10 s and are renewed every 3 s by the store's clock; log lines have this machine's time."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `remedy` is what to do if something is wrong.  A warning stops no worker."""

    about: str
    ok: bool
    found: str
    remedy: str = ""
    warning: bool = False
    code: int = 3


def doctor(as_json: Json = False) -> None:
    """Look at settings, Kafka, topics, stores, schema registry and disks; say what is wrong and what to do."""
    found = []
    for finding in _findings():
        found.append(finding)
        _show(finding, as_json)
    wrong = [one for one in found if not one.ok and not one.warning]
    if wrong:
        code = 2 if any(one.code == 2 for one in wrong) else 3
        raise Stop(f"{len(wrong)} of {len(found)} checks failed: {', '.join(o.about for o in wrong)}", code)


def _findings() -> Iterator[Finding]:
    from consumer.settings import SettingsError

    try:
        settings = context.worker_settings()
    except SettingsError as error:
        yield Finding("settings", False, "; ".join(str(error).splitlines()), "see docs/settings.md", code=2)
        return
    yield Finding("settings", True, f"worker {settings.worker_id}, {settings.delivery}, {_kind(settings)}")
    yield from _looked("kafka", "check KAFKA_BOOTSTRAP_SERVERS and that a broker runs there", lambda: _kafka(settings))
    yield from _registry(settings)
    if settings.search_backend == "dask":
        remedy = "check DASK_SCHEDULER and that `dask scheduler` runs there; until then searches run in the trainers"
        yield from _looked("dask", remedy, lambda: _dask(str(settings.dask_scheduler)), warning=True)

    from consumer.stores import open_stores

    try:
        stores = open_stores(settings)
    except ValueError as error:
        yield Finding("stores", False, str(error), "check MONGODB_URL", code=2)
        return
    yield from _stores(settings, stores)
    yield from map(_disk, ("SPOOL_DIR", "DATASET_CACHE_DIR"), (settings.spool_dir, settings.dataset_cache_dir))


def _looked(
    about: str, remedy: str, look: Callable[[], Iterator[Finding]], *, warning: bool = False
) -> Iterator[Finding]:
    """The findings of a check, or one that says that the service did not answer."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - any error of a service is a finding
        yield Finding(about, False, one_line(str(error))[:300] or type(error).__name__, remedy, warning)


def _kafka(settings: Settings) -> Iterator[Finding]:
    from confluent_kafka import KafkaException

    from consumer.cli.topics import admin_client, differences
    from consumer.events.topics import Topics
    from pipeline.errors import TransientError

    admin = admin_client(settings)
    try:
        cluster = admin.list_topics(timeout=context.TIMEOUT_S)
    except KafkaException as error:
        raise TransientError("kafka", f"{settings.kafka_bootstrap_servers}: {error.args[0].str()}") from error
    yield Finding("kafka", True, f"{len(cluster.brokers)} broker(s) at {settings.kafka_bootstrap_servers}")
    topics = Topics(settings.topic_prefix).all()
    missing = [topic.name for topic in topics if topic.name not in cluster.topics]
    if missing:
        yield Finding("topics", False, f"missing: {', '.join(missing)}", "run `tensorfleet topics create`", code=2)
        return
    asked = () if settings.embedded else topics  # the embedded broker does not report topic configuration
    different = [
        f"{topic.name} {one['name']} is {one['is']} instead of {one['should_be']}"
        for topic in asked
        for one in differences(admin, topic, topic.partitions, topic.partitions)
    ]
    if different:
        yield Finding(
            "topics",
            False,
            "; ".join(different),
            "change these settings of the topics, unless this is intended",
            warning=True,
        )
    else:
        yield Finding("topics", True, f"all {len(topics)} are there")


def _registry(settings: Settings) -> Iterator[Finding]:
    if not settings.schema_registry_url:
        yield Finding("schema registry", True, "none: events carry their schema's fingerprint")
        return
    yield from _looked(
        "schema registry", "check SCHEMA_REGISTRY_URL", lambda: _schemas(str(settings.schema_registry_url))
    )


def _schemas(url: str) -> Iterator[Finding]:
    from consumer.cli.schemas import checked

    states = [one["state"] for one in checked()]
    if "incompatible" in states:
        yield Finding(
            "schema registry",
            False,
            "it would refuse this version's schemas",
            "run `tensorfleet schemas check`",
            code=2,
        )
    elif "missing" in states:
        remedy = "a worker registers them when it starts, or run `tensorfleet schemas register`"
        yield Finding("schema registry", False, f"{states.count('missing')} schemas are missing", remedy, warning=True)
    else:
        yield Finding("schema registry", True, f"{len(states)} schemas are registered")


def _dask(address: str) -> Iterator[Finding]:
    """Whether the cluster has workers, with our versions of the libraries: searches use no others."""
    from pipeline.search.cluster import connect, versions

    with connect(address, context.TIMEOUT_S) as client:
        threads = client.nthreads()
        theirs = client.run(versions) if threads else {}
    others = [worker for worker, found in theirs.items() if found != versions()]
    if not threads:
        yield Finding("dask", False, f"{address} has no worker", "start some: `dask worker ADDRESS`", warning=True)
    elif others:
        remedy = "run them from the image of this worker"
        found = f"{len(others)} of {len(theirs)} workers have other libraries, such as {others[0]}"
        yield Finding("dask", False, found, remedy, warning=True)
    else:
        yield Finding("dask", True, f"{len(threads)} worker(s) with {sum(threads.values())} threads at {address}")


def _stores(settings: Settings, stores: Stores) -> Iterator[Finding]:
    url = settings.mongodb_url.get_secret_value()
    about, remedy = ("mongodb", "check MONGODB_URL and that it runs") if url else ("ledger", "check DATA_DIR")
    answered = list(_looked(about, remedy, lambda: _ledger(settings, stores, about)))
    yield from answered
    if url and all(one.ok for one in answered):
        yield from _looked("clock", "check MONGODB_URL", lambda: _clock(url))
    sizes = [1000]
    if settings.minio_endpoint:
        sizes.append(settings.artifact_gridfs_limit + 1)
    remedy = "check MONGODB_URL, and MINIO_ENDPOINT with its keys and bucket" if url else "check DATA_DIR"
    for count in sizes:
        name = "artifacts" if count == 1000 else "large artifacts"
        yield from _looked(name, remedy, lambda name=name, count=count: _artifact(stores, name, count))  # type: ignore[misc]


def _ledger(settings: Settings, stores: Stores, about: str) -> Iterator[Finding]:
    stores.ledger.prepare()
    stores.registry.prepare()
    where = f"database {settings.mongodb_db}" if about == "mongodb" else str(settings.data_dir)
    yield Finding(about, True, f"{where}, {stores.registry.count()} models are registered")


def _clock(url: str) -> Iterator[Finding]:
    from pipeline.databases import mongodb

    with mongodb.connect(url) as client:
        before = datetime.now(UTC)
        (answer,) = client.admin.aggregate([{"$documents": [{}]}, {"$project": {"now": "$$NOW"}}])
        after = datetime.now(UTC)
    ahead = (answer["now"] - (before + (after - before) / 2)).total_seconds()
    if abs(ahead) > SKEW_S:
        remedy = "synchronize both machines' clocks by NTP"
        yield Finding("clock", False, f"MongoDB's is {ahead:+.1f} s from ours", remedy, warning=True)
    else:
        yield Finding("clock", True, f"MongoDB's is {ahead:+.2f} s from ours")


def _artifact(stores: Stores, name: str, count: int) -> Iterator[Finding]:
    """Store an artifact, read it back, delete it."""
    from pipeline.artifacts import NewArtifact

    content = bytes(count)
    digest = sha256(content).hexdigest()
    with tempfile.TemporaryDirectory(prefix="tensorfleet-") as folder:
        file, back = Path(folder, "put"), Path(folder, "got")
        file.write_bytes(content)
        stores.artifacts.prepare()
        key = f"~doctor/~doctor/{uuid4()}/{digest}.zip"
        stored = stores.artifacts.put([NewArtifact(key, file, digest, count)])[key]
        try:
            stores.artifacts.fetch(stored.uri, back)
            same = back.read_bytes() == content
        finally:
            stores.artifacts.delete(stored.uri)
    where = stored.uri.partition("://")[0]
    if same:
        yield Finding(name, True, f"{size(count)} put, got and deleted in {where}")
    else:
        yield Finding(name, False, f"{where} gave back other bytes than were put", "check the store")


def _disk(name: str, folder: Path) -> Finding:
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < SPARE_BYTES:
        return Finding(
            "disk", False, f"{size(free)} free at {name} {folder}", "make room, or name another folder", True
        )
    return Finding("disk", True, f"{size(free)} free at {name} {folder}")


def _kind(settings: Settings) -> str:
    return f"embedded in {settings.data_dir}" if settings.embedded else "MongoDB"


def _show(finding: Finding, as_json: bool) -> None:
    sign = "✓" if finding.ok else "!" if finding.warning else "✗"
    if as_json:
        document: dict[str, Any] = asdict(finding)
        document.pop("code")
        write_json(document)
    elif on_terminal():
        from rich.text import Text

        style = {"✓": "green", "!": "yellow", "✗": "red"}[sign]
        line = Text.assemble((f"{sign} ", style), (f"{finding.about:<16}", "bold"), finding.found)
        if finding.remedy:
            line.append(f"\n  → {finding.remedy}", style)
        console().print(line)
    else:
        write(f"{sign} {finding.about}: {finding.found}" + (f" → {finding.remedy}" if finding.remedy else ""))
