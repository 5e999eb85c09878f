"""Describes the versions v1, v2, … of a dataset, and tells whether an imported version exists already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.datasets import DatasetSource, DatasetVersion, Origin
from pipeline.datasets.names import version_name
from pipeline.errors import RejectedError
from pipeline.reading.options import NOTHING_SAID, ReadOptions
from pipeline.reading.tables import fingerprint as fingerprint_of
from pipeline.reading.tables import profile


def description(
    table: pa.Table,
    fingerprint: str | None,
    target_column: str | None,
    origin: Origin,
    now: datetime | None,
    options: ReadOptions = NOTHING_SAID,
    s3_url: str | None = None,
) -> dict[str, Any]:
    """The description that is stored beside a canonical table, so that listing it does not read the rows; of a pointer
    it is all that is stored.  Without a fingerprint it is computed.
    """
    told = options.to_document()
    return {
        **({} if s3_url is None else {"s3_url": s3_url}),
        "target_column": target_column,
        "profile": asdict(profile(table, target_column)),
        "fingerprint": fingerprint or fingerprint_of(table),
        "imported_at": now,
        **asdict(origin),
        **({"options": told} if told else {}),
    }


def described(number: int, kept: Mapping[str, Any], *, current: bool) -> DatasetVersion:
    """A version from its stored description, in which fields may be missing if the file did not come from `add`."""
    at, known = kept.get("imported_at"), kept.get("profile") or {}
    return DatasetVersion(
        number=number,
        fingerprint=kept.get("fingerprint"),
        rows=known.get("rows"),
        columns=known.get("columns"),
        target_column=kept.get("target_column"),
        imported_at=datetime.fromisoformat(at) if isinstance(at, str) else at,
        origin=Origin(kept.get("user") or "", kept.get("file") or ""),
        current=current,
        options=ReadOptions.from_document(kept.get("options") or {}),
        s3_url=kept.get("s3_url"),
    )


def told_before(source: DatasetSource, name: str) -> tuple[ReadOptions, str | None]:
    """What the import of the name's current version was told: about its file, and its target; nothing without one."""
    try:
        versions = source.versions(name)
    except RejectedError:
        return NOTHING_SAID, None
    return next(((one.options, one.target_column) for one in versions if one.current), (NOTHING_SAID, None))


def target_of(asked: str | None, before: str | None, table: pa.Table) -> str | None:
    """The column to predict: the one that is asked for, else that of the version before if it is still there."""
    return asked or (before if before in table.column_names else None)


def is_description(kept: Any) -> bool:
    """Whether this JSON value has all fields of `description` and a version number; anybody may have written it."""
    return isinstance(kept, dict) and all(test(kept.get(field)) for field, test in _WRITTEN.items())


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 10**9


def is_profile(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.keys() != {"rows", "columns", "target", "classes"}:
        return False
    classes = value["classes"]
    return (
        _is_count(value["rows"])
        and _is_count(value["columns"])
        and is_text(value["target"])
        and (classes is None or (isinstance(classes, list) and all(map(is_text, classes))))
    )


def are_options(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    try:
        ReadOptions.from_document(value)
    except (RejectedError, TypeError, ValueError, AttributeError):
        return False
    return True


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_moment(value: Any) -> bool:
    try:
        moment = datetime.fromisoformat(value)
        return moment.tzinfo is not None and moment.astimezone(UTC) == moment
    except (TypeError, ValueError, OverflowError):  # beyond the years of a datetime when converted to UTC
        return False


_WRITTEN: Mapping[str, Callable[[Any], bool]] = {
    "version": is_number,
    "target_column": lambda value: value is None or is_text(value),
    "profile": is_profile,
    "fingerprint": is_text,
    "imported_at": lambda value: value is None or _is_moment(value),
    "user": is_text,
    "file": is_text,
    "options": lambda value: value is None or are_options(value),
}


def equal(versions: Iterable[DatasetVersion], wanted: Mapping[str, Any]) -> DatasetVersion | None:
    """The version with this description's target, options and content, which of a pointer is its url; or None."""
    s3_url, told = wanted.get("s3_url"), wanted.get("options", {})
    for one in versions:
        is_same = one.s3_url == s3_url and (s3_url is not None or one.fingerprint == wanted["fingerprint"])
        if is_same and one.target_column == wanted["target_column"] and one.options.to_document() == told:
            return one
    return None


def next_number(name: str, numbers: Iterable[int], taken: Callable[[str], bool]) -> int:
    """The next number, skipping names such as `churn.v2` that another dataset already has."""
    number = max(numbers, default=0) + 1
    while taken(version_name(name, number)):
        number += 1
    return number


def now() -> datetime:
    """The present, cut to milliseconds, which is MongoDB's resolution."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
