"""Datasets in MongoDB: a document that names a GridFS file, or a collection whose documents are the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import bson
import pyarrow as pa
import pymongo
from bson import ObjectId
from bson.binary import UuidRepresentation
from gridfs import GridFSBucket, GridOut
from gridfs.errors import CorruptGridFile, NoFile
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, OperationFailure

from pipeline.datasets import DatasetSummary, Loaded
from pipeline.datasets.files import parquet_of, read_table
from pipeline.datasets.names import check_free, check_name, unknown
from pipeline.datasets.rows import table_of
from pipeline.datasets.tables import about, canonical, check_target, fingerprint, profile
from pipeline.errors import RejectedError
from pipeline.mongodb import Document, durable, transient

OWN_COLLECTIONS = frozenset(
    {"datasets", "model_registry", "model_aliases", "training_requests", "training_outcomes", "workers"}
)
UPLOAD_TIMEOUT_S = 120.0
PROFILED_BYTES = 1024 * 1024
PROFILED_ROWS = 5_000
NEWEST = [("_id", pymongo.DESCENDING)]


class MongoSource:
    """Collection `datasets` with documents {name, file_id, target_column, …}, files in the GridFS bucket `fs`.

    A name without such a document, or whose document has no file_id, is a collection of that name: its documents in
    the order of their `_id`, which is no column.  Our own collections are no datasets.
    """

    def __init__(
        self,
        database: Database[Document],
        own_collections: Collection[str] = OWN_COLLECTIONS,
        max_bytes: int | None = None,
    ) -> None:
        self._own = own_collections
        self._max_bytes = max_bytes
        self._database = durable(database)
        self._documents = self._database["datasets"]
        self._files = GridFSBucket(self._database)

    @transient("looking up a dataset")
    def revision(self, name: str) -> str | None:
        document = self._document(name)
        if document is None or document.get("file_id") is None:
            self._check_collection(name)
            return None
        return _revision(document)

    @transient("reading a dataset")
    def load(self, name: str) -> Loaded:
        document = self._document(name)
        while document is not None and document.get("file_id") is not None:
            try:
                return self._load_file(name, document)
            except (NoFile, CorruptGridFile) as error:
                before, document = document, self._document(name)
                if document == before:  # else it was replaced, and its file removed, while we read
                    raise RejectedError(f"dataset {name!r}: its file in GridFS cannot be read: {error}") from error
        return self._load_collection(name, document)

    @transient("listing datasets")
    def list(self) -> Sequence[DatasetSummary]:
        documents = {document["name"]: document for document in self._documents.find({"name": {"$type": "string"}})}
        collections = {name for name in self._database.list_collection_names() if self._may_be_rows(name)}
        return [
            self._of_document(documents[name]) if name in documents else self._of_collection(name)
            for name in sorted(documents.keys() | collections)
        ]

    @transient("storing a dataset")
    def add(self, name: str, table: pa.Table, target_column: str | None) -> None:
        check_free(name)
        with about(name):
            table = canonical(table)
            check_target(table, target_column)
        self._ensure_index()  # at once, whatever the size of what follows, if nobody answers
        with pymongo.timeout(UPLOAD_TIMEOUT_S):
            file_id = self._files.upload_from_stream(f"{name}.parquet", parquet_of(table), metadata={"dataset": name})
        before = self._replace(
            {
                "name": name,
                "file_id": file_id,
                "target_column": target_column,
                "profile": asdict(profile(table, target_column)),
                "fingerprint": fingerprint(table),
                "created_at": datetime.now(UTC),
            }
        )
        old = None if before is None else before.get("file_id")
        if old is not None and self._documents.count_documents({"file_id": old}) == 0:
            with suppress(NoFile):
                self._files.delete(old)

    def _document(self, name: str) -> Document | None:
        check_name(name)
        return self._documents.find_one({"name": name}, sort=NEWEST)

    def _ensure_index(self) -> None:
        with suppress(OperationFailure):  # documents that were there before us may share a name: the newest counts
            self._documents.create_index("name", unique=True)

    def _replace(self, document: Document) -> Document | None:
        """Returns the document that was there."""
        while True:
            with suppress(DuplicateKeyError):  # two who add the same new name do it one after another
                return self._documents.find_one_and_replace(
                    {"name": document["name"]}, document, sort=NEWEST, upsert=True
                )

    def _load_file(self, name: str, document: Document) -> Loaded:
        with self._open(document["file_id"]) as file, about(name):
            self._check_size(file.length)
            table = read_table(file.read(), file.filename or "", self._max_bytes)
        return Loaded(table, document.get("target_column"), _revision(document))

    def _open(self, file_id: Any) -> GridOut:
        """The file; an id may also be written as text."""
        try:
            return self._files.open_download_stream(file_id)
        except NoFile:
            if not isinstance(file_id, str) or not ObjectId.is_valid(file_id):
                raise
            return self._files.open_download_stream(ObjectId(file_id))

    def _load_collection(self, name: str, document: Document | None) -> Loaded:
        if not self._may_be_rows(name):
            raise self._unknown(name)
        options = self._database.codec_options.with_options(uuid_representation=UuidRepresentation.STANDARD)
        rows = self._database.get_collection(name, codec_options=options)
        with about(name), rows.find({}, {"_id": 0}).sort("_id") as cursor:
            table = table_of(cursor, self._max_bytes)
        if not table.num_rows:
            self._check_collection(name)
        with about(name):
            table = canonical(table)
        return Loaded(table, (document or {}).get("target_column"), fingerprint(table))

    def _check_collection(self, name: str) -> None:
        if not self._may_be_rows(name) or not self._database.list_collection_names(filter={"name": name}):
            raise self._unknown(name)

    def _unknown(self, name: str) -> RejectedError:
        known = self._documents.distinct("name", {"name": {"$type": "string"}})
        return unknown(name, [*known, *filter(self._may_be_rows, self._database.list_collection_names())])

    def _may_be_rows(self, collection: str) -> bool:
        return not (
            collection in self._own or collection.startswith("system.") or collection.endswith((".files", ".chunks"))
        )

    def _check_size(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise RejectedError(
                f"its file of {size:,} bytes is larger than the dataset cache of {self._max_bytes:,} bytes"
            )

    def _of_document(self, document: Document) -> DatasetSummary:
        """What `add` has stored, else what a small file tells."""
        name, target = document["name"], document.get("target_column")
        if "profile" in document:
            return DatasetSummary(name, **document["profile"], source="mongodb")
        with suppress(RejectedError, NoFile, CorruptGridFile):
            if document.get("file_id") is None:
                return self._of_collection(name, target)
            with self._open(document["file_id"]) as file:
                if file.length <= PROFILED_BYTES:
                    return _summary(self._load_file(name, document), name)
        return DatasetSummary(name, None, None, target, None, "mongodb")

    def _of_collection(self, name: str, target: str | None = None) -> DatasetSummary:
        rows = self._database[name].estimated_document_count()
        with suppress(RejectedError):
            if rows <= PROFILED_ROWS:
                return _summary(self._load_collection(name, {"target_column": target}), name)
        first = self._database[name].find_one({}, {"_id": 0}, sort=[("_id", 1)]) or {}
        return DatasetSummary(name, rows, len(first), target or next(reversed(first), None), None, "mongodb")


def _revision(document: Document) -> str:
    """Of all fields: a file is never changed under its id."""
    return hashlib.sha256(bson.encode(document)).hexdigest()


def _summary(loaded: Loaded, name: str) -> DatasetSummary:
    return DatasetSummary(name, **asdict(profile(loaded.table, loaded.target_column)), source="mongodb")
