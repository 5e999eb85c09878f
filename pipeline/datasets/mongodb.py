"""Datasets in MongoDB: a document that names a GridFS file, or a collection whose documents are the rows."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from operator import itemgetter
from typing import Any

import bson
import pyarrow as pa
import pymongo
from bson import ObjectId
from bson.errors import BSONError
from gridfs import GridFSBucket, GridOut
from gridfs.errors import CorruptGridFile, NoFile
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from pipeline.databases.mongodb import Document, durable, transient
from pipeline.datasets import (
    UNKNOWN_ORIGIN,
    Added,
    DatasetSummary,
    DatasetVersion,
    Fetched,
    Loaded,
    Origin,
    Read,
    documents,
    reading,
)
from pipeline.datasets.documents import checked, checked_or_none, readable
from pipeline.datasets.names import (
    check_free,
    check_name,
    is_collection_name,
    not_versioned,
    unknown,
    unknown_version,
    version_of,
)
from pipeline.datasets.s3 import Pointer, S3Objects
from pipeline.datasets.sink import Sink
from pipeline.datasets.versions import described, description, equal, next_number, now
from pipeline.errors import RejectedError
from pipeline.reading.options import NOTHING_SAID, ReadOptions
from pipeline.reading.rows import BATCH_ROWS, CODEC
from pipeline.reading.tables import about, canonical, check_target, profile
from pipeline.reading.writers import parquet_of

OWN_COLLECTIONS = frozenset(
    {"datasets", "model_registry", "model_aliases", "training_requests", "training_outcomes", "workers"}
)
UPLOAD_TIMEOUT_S = 120.0
ROWS_TIMEOUT_S = 120.0
"""Limits how long the server may take to read a collection or compute a view, and to answer with one batch."""
PROFILED_BYTES = 1024 * 1024
PROFILED_ROWS = 5_000
NEWEST = [("_id", pymongo.DESCENDING)]


class MongoSource:
    """Reads collection `datasets` with documents {name, file_id, target_column, …}; files are in the GridFS bucket
    `fs`.

    A name without such a document, or whose document has no file_id, means the collection of that name: its documents
    in the order of `_id`, which is not a column.  Our own collections are not datasets.

    A document also lists the `versions` of its name, each with its own file; `version` is the number of the current
    one, whose fields the document repeats.  A file is stored first; then one write makes it current and keeps the
    others.  A pointer has an s3_url in place of the file_id.
    """

    def __init__(
        self,
        database: Database[Document],
        own_collections: Collection[str] = OWN_COLLECTIONS,
        max_bytes: int | None = None,
        read: Read = reading.read,
        objects: S3Objects | None = None,
    ) -> None:
        self._own = own_collections
        self._max_bytes = max_bytes
        self._read = read
        self._objects = objects or S3Objects()
        self._database = durable(database)
        self._documents = self._database.get_collection("datasets", codec_options=documents.CODEC)
        self._files = GridFSBucket(self._database.with_options(codec_options=documents.CODEC))

    @transient("looking up a dataset")
    def revision(self, name: str, *, at_once: bool = False) -> str | None:
        document = self._document(name)
        if document is not None and _url(document) is not None:
            return None if at_once else self._objects.revision(name, Pointer.of(document))
        if document is None or document.get("file_id") is None:
            self._check_collection(name)
            return None
        return _revision(document)

    def load(self, name: str) -> Loaded:
        return self._loaded(lambda sink: self.fetch(name, sink))

    @transient("reading a dataset")
    def fetch(self, name: str, sink: Sink) -> Fetched:
        document = self._document(name)
        while document is not None and document.get("file_id") is not None:
            try:
                return self._fetch_file(name, document, sink)
            except (NoFile, CorruptGridFile):
                before, document = document, self._document(name)
                if document == before:  # else it was replaced, and its file removed, while we read
                    with readable(name, before["file_id"]):
                        raise
        if document is not None and _url(document) is not None:
            return self._objects.fetch(name, Pointer.of(document), sink)
        return self._fetch_collection(name, document, sink)

    @transient("listing datasets")
    def list(self) -> Sequence[DatasetSummary]:
        kept = self._documents.with_options(codec_options=documents.LISTED)
        found = kept.find({"name": {"$type": "string"}}, {"versions": False})
        described = {document["name"]: document for document in found if isinstance(document["name"], str)}
        collections = {name for name in self._database.list_collection_names() if self._may_be_rows(name)}
        return [
            self._of_document(described[name]) if name in described else self._of_collection(name)
            for name in sorted(described.keys() | collections)
        ]

    @transient("storing a dataset")
    def add(
        self,
        name: str,
        table: pa.Table,
        target_column: str | None,
        origin: Origin = UNKNOWN_ORIGIN,
        options: ReadOptions = NOTHING_SAID,
        fingerprint: str | None = None,
    ) -> Added:
        check_free(name)
        with about(name):
            table = canonical(table) if fingerprint is None else table
            check_target(table, target_column)
        self._ensure_index()  # fails at once if the server is away, before the upload
        new = description(table, fingerprint, target_column, origin, now(), options)
        if there := equal(self._versions(self._whole(name)), new):
            return Added(self._make_current(name, there.number), is_new=False)
        with pymongo.timeout(UPLOAD_TIMEOUT_S):
            file_id = self._files.upload_from_stream(f"{name}.parquet", parquet_of(table), metadata={"dataset": name})

        def next_version(before: Document | None) -> Document:
            kept = [self._filled(one) for one in self._entries(before)]
            entry = {
                "version": next_number(name, (one["version"] for one in kept), self._taken),
                "file_id": file_id,
                **new,
            }
            return {"name": name, **entry, "versions": [*kept, entry]}

        added = self._change(name, next_version)
        return Added(described(added["version"], new, current=True), is_new=True)

    @transient("storing a dataset")
    def point(
        self,
        name: str,
        s3_url: str,
        target_column: str | None,
        origin: Origin = UNKNOWN_ORIGIN,
        options: ReadOptions = NOTHING_SAID,
    ) -> tuple[Added, pa.Table]:
        check_free(name)
        pointer = Pointer(s3_url, target_column, options)
        loaded = self._loaded(lambda sink: self._objects.fetch(name, pointer, sink))
        with about(name):
            check_target(loaded.table, target_column)
        self._ensure_index()
        new = description(loaded.table, loaded.fingerprint, target_column, origin, now(), options, s3_url)

        def repointed(before: Document | None) -> Document:
            kept = [self._filled(one) for one in self._entries(before)]
            there = equal(self._versions(before), new)
            number = there.number if there else next_number(name, (one["version"] for one in kept), self._taken)
            entry = {"version": number, **new}
            others = [one for one in kept if one["version"] != number]
            is_new.append(there is None)
            return {"name": name, **entry, "versions": sorted([*others, entry], key=itemgetter("version"))}

        is_new: builtins.list[bool] = []
        added = self._change(name, repointed)
        return Added(described(added["version"], new, current=True), is_new=is_new[-1]), loaded.table

    @transient("looking up versions of a dataset")
    def versions(self, name: str) -> Sequence[DatasetVersion]:
        if (document := self._whole(name)) is not None:
            return self._versions(document)
        if (version := self._document(name)) is not None:  # the name is that of a version
            return [self._version(version, current=True)]
        self._check_collection(name)
        return []

    @transient("restoring a dataset")
    def restore(self, name: str, number: int) -> DatasetVersion:
        check_free(name)
        return self._make_current(name, number)

    @transient("removing versions of a dataset")
    def prune(self, name: str, keep: int) -> Sequence[DatasetVersion]:
        check_free(name)
        gone: builtins.list[Document] = []

        def fewer(before: Document | None) -> Document:
            if before is None:
                self._check_collection(name)
                raise not_versioned(name)
            entries = self._entries(before)
            gone[:] = [one for one in entries[: max(0, len(entries) - keep)] if not _same(one, before)]
            return {**before, "versions": [one for one in entries if one not in gone]}

        self._change(name, fewer)
        for entry in gone:
            if _url(entry) is None:
                self._delete_unless_named(entry["file_id"])
        return [described(one["version"], one, current=False) for one in gone]

    def _document(self, name: str) -> Document | None:
        """The document to read for a name: its own, without the list of versions, or that of the version it names."""
        check_name(name)
        document = self._found(name, {"versions": False})
        if document is None and (version := version_of(name)) is not None and not self._is_collection(name):
            base, number = version
            return next((one for one in self._entries(self._whole(base)) if one["version"] == number), None)
        return document

    def _whole(self, name: str) -> Document | None:
        check_name(name)
        return self._found(name)

    def _found(self, name: str, fields: Document | None = None) -> Document | None:
        with readable(name):
            document = self._documents.find_one({"name": name}, fields, sort=NEWEST)
        return None if document is None else checked(document)

    def _taken(self, name: str) -> bool:
        return self._documents.find_one({"name": name}, {"_id": 1}) is not None

    def _entries(self, document: Document | None) -> builtins.list[Document]:
        """The versions, oldest first; a file that did not come from `add` counts as the next version."""
        if document is None:
            return []
        entries = list(document.get("versions") or ())
        content = {field: document[field] for field in ("file_id", "s3_url") if document.get(field) is not None}
        if content and not any(_same(one, document) for one in entries):
            number = next_number(document["name"], (one["version"] for one in entries), self._taken)
            entries.append({"version": number, **content, "target_column": document.get("target_column")})
        return entries

    def _versions(self, document: Document | None) -> Sequence[DatasetVersion]:
        return [self._version(one, current=_same(one, document or {})) for one in self._entries(document)]

    def _version(self, entry: Document, *, current: bool) -> DatasetVersion:
        return described(entry["version"], self._filled(entry), current=current)

    def _filled(self, entry: Document) -> Document:
        """The entry with a description; for a file that did not come from `add` it is made by reading the file, if
        possible.  A pointer is not read for it.
        """
        if "fingerprint" not in entry and _url(entry) is None:
            with suppress(RejectedError, NoFile, CorruptGridFile):
                loaded = self._loaded(lambda sink: self._fetch_file("", entry, sink))
                own = description(loaded.table, loaded.fingerprint, loaded.target_column, UNKNOWN_ORIGIN, None)
                return {**own, **entry}
        return entry

    def _make_current(self, name: str, number: int) -> DatasetVersion:
        def pointed(before: Document | None) -> Document:
            if before is None:
                self._check_collection(name)
            entries = self._entries(before)
            for entry in entries:
                if entry["version"] == number:
                    return {"name": name, **entry, "versions": entries}
            raise unknown_version(name, number, (one["version"] for one in entries))

        return self._version(self._change(name, pointed), current=True)

    def _change(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a name's document by `change(document)` atomically; repeat if the document changed meanwhile."""
        while True:
            before = self._whole(name)
            after = change(before)
            after.pop("_id", None)
            if before is None:
                with suppress(DuplicateKeyError):
                    self._documents.insert_one(after)
                    return after
            else:
                seen = {key: before.get(key) for key in ("_id", "file_id", "s3_url", "version", "versions")}
                if self._documents.replace_one(seen, after).matched_count:
                    return after

    def _delete_unless_named(self, file_id: Any) -> None:
        if not self._documents.count_documents({"$or": [{"file_id": file_id}, {"versions.file_id": file_id}]}):
            with suppress(NoFile):
                self._files.delete(file_id)

    def _ensure_index(self) -> None:
        with suppress(OperationFailure):  # older documents may share a name; then the newest counts
            self._documents.create_index("name", unique=True)

    def _loaded(self, fetch: Callable[[Sink], Fetched]) -> Loaded:
        return reading.load(fetch, self._read, self._max_bytes)

    def _fetch_file(self, name: str, document: Document, sink: Sink) -> Fetched:
        with about(name), _described_rightly(), self._open(document["file_id"]) as file:
            sink.begin(int(file.length))
            while part := file.readchunk():
                sink.write(part)
            file_name = str(file.filename or "")
        target = document.get("target_column")
        return Fetched(name, sink.path, file_name, target, _revision(document), is_typed="fingerprint" in document)

    def _open(self, file_id: Any) -> GridOut:
        """Open the file; its id may be stored as text."""
        try:
            return self._files.open_download_stream(file_id)
        except NoFile:
            if not isinstance(file_id, str) or not ObjectId.is_valid(file_id):
                raise
            return self._files.open_download_stream(ObjectId(file_id))

    def _fetch_collection(self, name: str, document: Document | None, sink: Sink) -> Fetched:
        if not self._may_be_rows(name):
            raise self._unknown(name)
        try:
            return self._fetch_rows(name, document, sink)
        except PyMongoError as error:
            _check_took(name, error)
            if not error.timeout:
                raise
        try:  # the primary may have changed
            return self._fetch_rows(name, document, sink)
        except PyMongoError as again:
            _check_took(name, again)
            if again.timeout and not self._is_stored(name):  # this query answered, so MongoDB is reachable
                raise _too_slow(name) from again
            raise

    def _fetch_rows(self, name: str, document: Document | None, sink: Sink) -> Fetched:
        """Fetch the raw batches as the server sends them; no document is decoded in this process."""
        target, digest = (document or {}).get("target_column"), hashlib.sha256()
        batches: Any = self._database[name].find_raw_batches({}, {"_id": 0}, batch_size=BATCH_ROWS)
        sink.begin()
        with readable(name), about(name), batches.sort("_id") as cursor:
            while batch := self._next_batch(cursor):
                digest.update(batch)
                sink.write(batch)
        if not sink.size_bytes:
            self._check_collection(name)
        return Fetched(name, sink.path, None, target, f"{digest.hexdigest()} {target!r}")

    def _next_batch(self, cursor: Any) -> bytes:
        with pymongo.timeout(ROWS_TIMEOUT_S):
            return next(cursor, b"")

    @contextmanager
    def _readable_rows(self, name: str) -> Iterator[None]:
        """Like `readable`, but a view that takes too long raises RejectedError, so that it does not stop a list."""
        with readable(name):
            try:
                yield
            except PyMongoError as error:
                if not error.timeout or self._is_stored(name):
                    raise
                raise _too_slow(name) from error

    def _is_stored(self, name: str) -> bool:
        """Whether MongoDB stores the rows in the order of `_id`; it does not for views and time series."""
        return any(found["type"] == "collection" for found in self._database.list_collections(filter={"name": name}))

    def _check_collection(self, name: str) -> None:
        if not self._is_collection(name):
            raise self._unknown(name)

    def _is_collection(self, name: str) -> bool:
        return self._may_be_rows(name) and bool(self._database.list_collection_names(filter={"name": name}))

    def _unknown(self, name: str) -> RejectedError:
        known = self._documents.distinct("name", {"name": {"$type": "string"}})
        names = [one for one in known if isinstance(one, str)]
        if name in names:
            return RejectedError(f"dataset {name!r}: its document has no file_id, and there is no collection {name}")
        return unknown(name, [*names, *filter(self._may_be_rows, self._database.list_collection_names())])

    def _may_be_rows(self, collection: str) -> bool:
        taken = collection in self._own or collection.endswith((".files", ".chunks"))
        return is_collection_name(collection) and not taken

    def _of_document(self, document: Document) -> DatasetSummary:
        """From the description that `add` stored, else by reading the file if it is small."""
        name, known = document["name"], checked_or_none(document)
        if known is None:
            return DatasetSummary(name, None, None, None, None, "mongodb")
        document, target = known, known.get("target_column")
        source = "mongodb" if _url(document) is None else "s3"
        if document.get("profile") is not None:
            return DatasetSummary(name, **document["profile"], source=source, version=document.get("version"))
        if source == "s3":
            return DatasetSummary(name, None, None, target, None, source)
        with suppress(RejectedError, NoFile, CorruptGridFile):
            if document.get("file_id") is None:
                return self._of_collection(name, target)
            with self._open(document["file_id"]) as file:
                is_small = file.length <= PROFILED_BYTES
            if is_small:
                return _summary(name, self._loaded(lambda sink: self._fetch_file(name, document, sink)))
        return DatasetSummary(name, None, None, target, None, "mongodb")

    def _of_collection(self, name: str, target: str | None = None) -> DatasetSummary:
        collection = self._database.get_collection(name, codec_options=CODEC)
        rows = None
        with suppress(RejectedError), self._readable_rows(name):
            rows = collection.estimated_document_count()
            if rows <= PROFILED_ROWS:
                return _summary(
                    name, self._loaded(lambda sink: self._fetch_collection(name, {"target_column": target}, sink))
                )
        with suppress(RejectedError), self._readable_rows(name):
            first = collection.find_one({}, {"_id": 0}, sort=[("_id", 1)]) or {}
            return DatasetSummary(name, rows, len(first), target, None, "mongodb")
        return DatasetSummary(name, rows, None, target, None, "mongodb")


def _url(document: Document) -> str | None:
    """Where the bytes are if this document or version is a pointer."""
    return document.get("s3_url") if document.get("file_id") is None else None


def _same(one: Document, other: Document) -> bool:
    """Whether both are the same version of a name.  Each file has its own id, but two pointers may have one url."""
    if _url(one) is None:
        return bool(one["file_id"] == other.get("file_id"))
    return _url(one) == _url(other) and other.get("version") in (None, one["version"])


def _revision(document: Document) -> str:
    """A hash of all fields; that is enough, since a file never changes under its id."""
    return hashlib.sha256(bson.encode(document)).hexdigest()


def _summary(name: str, loaded: Loaded) -> DatasetSummary:
    return DatasetSummary(name, **asdict(profile(loaded.table, loaded.target_column)), source="mongodb")


def _check_took(name: str, error: PyMongoError) -> None:
    """Raises RejectedError if the server reports the time-out; the driver's own time-outs have no code name."""
    details = error.details if isinstance(error, OperationFailure) else None
    if (details or {}).get("codeName") == "MaxTimeMSExpired":
        raise _too_slow(name) from error


def _too_slow(name: str) -> RejectedError:
    return RejectedError(
        f"dataset {name!r}: MongoDB takes more than {ROWS_TIMEOUT_S:g} s to read its rows; import them, or "
        "store what a view computes in a collection ($merge)"
    )


@contextmanager
def _described_rightly() -> Iterator[None]:
    """Turns errors from wrong GridFS metadata, which whoever stored the file has written, into RejectedError."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, AttributeError, KeyError, BSONError) as error:
        raise RejectedError("its file in GridFS cannot be read: its entry in fs.files or fs.chunks is wrong") from error
