"""Checks documents of the collection `datasets`, which anybody may write, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bson import Binary, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from gridfs.errors import CorruptGridFile, NoFile
from pymongo.errors import OperationFailure

from pipeline.databases.mongodb import ACCESS_CODES, NOT_AUTHORIZED, Document, waiting_helps
from pipeline.datasets.s3 import is_url
from pipeline.datasets.versions import are_options, is_number, is_profile, is_text
from pipeline.errors import RejectedError, said_by

CODEC: CodecOptions[Document] = CodecOptions(
    tz_aware=True,
    tzinfo=UTC,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""How these documents are decoded: a date that no datetime holds only makes its own field wrong."""
LISTED = CODEC.with_options(unicode_decode_error_handler="replace")
"""For listing: text that is not UTF-8 in one document does not stop the list."""
LONGEST_COLUMN = 1_000


def checked(document: Mapping[str, Any]) -> Document:
    """The document, after checking the types of all fields that are read; an empty target becomes None.

    Raises RejectedError that names the dataset, the field and what it takes.
    """
    found = dict(document)
    if found.get("target_column") == "":
        found["target_column"] = None
    wrong = [*_wrong(found, _FIELDS), *_wrong_versions(found.get("versions"))]
    if wrong:
        raise RejectedError(
            f"dataset {_shown(found.get('name'))}: in its document in the collection datasets {wrong[0]}"
        )
    return found


def checked_or_none(document: Mapping[str, Any]) -> Document | None:
    """Like `checked`, but None for a bad document, so that it does not stop a list."""
    try:
        return checked(document)
    except RejectedError:
        return None


@contextmanager
def readable(name: str, file_id: Any = None) -> Iterator[None]:
    """Turn errors of MongoDB's driver or server about one dataset's file or rows into RejectedError.

    Texts that would show hosts of the client are left out.  Errors that pass with time and errors about credentials are
    not caught.
    """
    try:
        yield
    except NoFile as error:
        raise RejectedError(
            f"dataset {name!r}: its file in GridFS cannot be read: there is none with the file_id {_shown(file_id)}; "
            "import it again"
        ) from error
    except CorruptGridFile as error:
        raise RejectedError(
            f"dataset {name!r}: its file in GridFS cannot be read: parts of {_shown(file_id)} are missing or of "
            "another size; import it again"
        ) from error
    except BSONError as error:
        raise RejectedError(f"dataset {name!r}: one of its documents cannot be read: {said_by(error)}") from error
    except OperationFailure as error:
        if error.code == NOT_AUTHORIZED:
            raise RejectedError(f"dataset {name!r} may not be read by the workers") from error
        if waiting_helps(error) or error.code in ACCESS_CODES:
            raise
        said = str((error.details or {}).get("errmsg", "") or "it gave no reason")[:500]
        raise RejectedError(f"dataset {name!r}: MongoDB cannot read it: {said}") from error


Test = Callable[[Any], bool]


def _is_column(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_COLUMN


def _is_file_id(value: Any) -> bool:
    return isinstance(value, ObjectId | UUID | Binary | str | int) and not isinstance(value, bool)


_FIELDS: Mapping[str, tuple[Test, str]] = {
    "file_id": (_is_file_id, "the _id of a file in GridFS (an ObjectId, text, a UUID or an integer)"),
    "s3_url": (is_url, "s3://BUCKET/KEY.parquet, or s3://BUCKET/PREFIX/ with a slash at its end"),
    "target_column": (_is_column, "the name of a column, of at most 1,000 characters"),
    "version": (is_number, "the number of a version, 1 or more"),
    "profile": (is_profile, "what tensorfleet writes there: rows, columns, target and classes"),
    "fingerprint": (is_text, "text"),
    "imported_at": (lambda value: isinstance(value, datetime), "a date"),
    "user": (is_text, "text"),
    "file": (is_text, "text"),
    "options": (are_options, "what tensorfleet writes there: how the file was read"),
}


def _wrong(document: Mapping[str, Any], fields: Mapping[str, tuple[Test, str]], where: str = "") -> Iterator[str]:
    if not where and not is_text(document.get("name")):
        yield f"name takes text, not {_shown(document.get('name'))}"
    for field, (test, takes) in fields.items():
        value = document.get(field)
        if value is not None and not test(value):
            yield f"{where}{field} takes {takes}, not {_shown(value)}"


def _wrong_versions(versions: Any) -> Iterator[str]:
    if versions is None:
        return
    if not isinstance(versions, Sequence) or isinstance(versions, str | bytes):
        yield f"versions takes a list, not {_shown(versions)}"
        return
    numbers: set[int] = set()
    for place, entry in enumerate(versions):
        where = f"versions[{place}]"
        if not isinstance(entry, Mapping):
            yield f"{where} takes an object with version and file_id, not {_shown(entry)}"
            return
        content = "file_id" if entry.get("s3_url") is None else "s3_url"
        if missing := [field for field in ("version", content) if entry.get(field) is None]:
            yield f"{where} lacks {' and '.join(missing)}"
            return
        yield from _wrong(entry, _FIELDS, f"{where}.")
        if is_number(entry["version"]) and entry["version"] in numbers:
            yield f"{where}.version repeats {entry['version']}"
        elif is_number(entry["version"]):
            numbers.add(entry["version"])


def _shown(value: Any) -> str:
    text = repr(str(value)) if isinstance(value, ObjectId | UUID) else repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
