"""The registry in MongoDB, in one collection that may also hold documents of the worker that this one replaced.

Those documents have no `version_number` and `request_id`, so the unique indexes leave them out.  They are shown but
never written: in project "default", their version text "v1700000000" as the number 1700000000, format "pickle", and
missing fields blank.  They do not count in numbering, and find() ignores them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pymongo
from pymongo import ReturnDocument
from pymongo.database import Database

from pipeline.databases.mongodb import Document, create_index, durable, insert_new, plain, transient
from pipeline.errors import RejectedError
from pipeline.jobs import Model, Outcome, RegisteredModel
from pipeline.registry import NO_TAGS, Usage
from pipeline.registry.not_found import no_such_model, no_such_version, only_archived

LEGACY_PROJECT = "default"
NUMBERED = {"version_number": {"$gte": 1}}
NOT_ARCHIVED = {"archived_at": None}
NEWEST_FIRST = [("created_at", pymongo.DESCENDING), ("version_number", pymongo.DESCENDING)]
REMEMBERED = 10_000
NAMES = 10_000
"""The most names of a project that are looked through for one that was meant."""

ModelKey = tuple[str, str]


class MongoRegistry:
    """Implements pipeline.registry.Registry; safe for several threads.

    It caches the highest version of each model that it has seen confirmed.  Documents are never deleted, so the next
    number is either free or refused.  The cache saves a read and can never cause a gap.
    """

    def __init__(self, database: Database[Document], collection: str = "model_registry") -> None:
        self._models = durable(database)[collection]
        self._confirmed: dict[ModelKey, int] = {}

    @transient("preparing the registry")
    def prepare(self) -> None:
        models, exists = self._models, {"$exists": True}
        create_index(models, "request_id", unique=True, partialFilterExpression={"request_id": exists})
        create_index(
            models,
            ["project", "model_name", "version_number"],
            unique=True,
            partialFilterExpression={"version_number": exists},
        )
        create_index(models, NEWEST_FIRST)
        create_index(models, ["project", "archived_at", *NEWEST_FIRST, "artifact_bytes"])
        create_index(models, ["model_name", *NEWEST_FIRST])
        create_index(models, ["dataset_name", *NEWEST_FIRST])
        create_index(
            models,
            ["reuse_key", "project", ("created_at", pymongo.DESCENDING)],
            partialFilterExpression={"reuse_key": {"$gt": ""}},
        )

    @transient("registering models")
    def register(self, outcomes: Sequence[Outcome]) -> Mapping[str, RegisteredModel]:
        """Register the outcomes in rounds; each round inserts the first waiting outcome of each model in one write.

        So a write that is applied in part leaves no gap.  If an insert is refused, the request has a document, or
        another worker took the version; the next round then tries the next number.
        """
        waiting = {outcome.request_id: outcome for outcome in outcomes}
        standing: dict[str, RegisteredModel] = {}
        while waiting:
            turn: dict[ModelKey, Outcome] = {}
            for outcome in waiting.values():
                turn.setdefault(_model_key(outcome), outcome)
            registered = self._insert_next(turn)
            refused = [outcome.request_id for outcome in turn.values() if outcome.request_id not in registered]
            if refused:
                registered |= self.find(refused)
            standing |= registered
            self._forget([key for key, outcome in turn.items() if outcome.request_id not in standing])
            waiting = {i: outcome for i, outcome in waiting.items() if i not in standing}
        return standing

    @transient("finding models")
    def find(self, request_ids: Collection[str]) -> Mapping[str, RegisteredModel]:
        rows = self._models.find({"request_id": {"$in": list(request_ids)}}) if request_ids else ()
        return {row["request_id"]: _registered(row) for row in rows}

    @transient("reading a model")
    def get(self, project: str, model_name: str, version_number: int | None = None) -> RegisteredModel:
        """The newest version is the highest; a model that has only legacy documents shows those."""
        model = {"project": project, "model_name": model_name}
        newest = self._newest({**model, **NUMBERED})
        if newest is not None and version_number is None:
            shown = newest if newest.get("archived_at") is None else self._newest({**model, **NUMBERED, **NOT_ARCHIVED})
            if shown is None:
                raise only_archived(project, model_name, newest["version_number"])
            return _registered(shown)
        if newest is not None and version_number == newest["version_number"]:
            return _registered(newest)
        named = None if version_number is None else self._models.find_one({**model, "version_number": version_number})
        if named is None and project == LEGACY_PROJECT:
            version = {} if version_number is None else {"version": f"v{version_number}"}
            legacy = {"model_name": model_name, "project": None, "version_number": None, **version}
            named = self._models.find_one(legacy, sort=[("created_at", pymongo.DESCENDING)])
        if named is not None:
            return _registered(named)
        if newest is not None and version_number is not None:
            raise no_such_version(project, model_name, version_number, newest["version_number"])
        raise no_such_model(project, model_name, self._names(project))

    @transient("listing models")
    def list(
        self,
        *,
        project: str | None = None,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: Mapping[str, str] = NO_TAGS,
        archived: bool = False,
        limit: int = 100,
    ) -> Sequence[RegisteredModel]:
        query: Document = {} if archived else dict(NOT_ARCHIVED)
        query |= {} if project is None else _in_project(project)
        query |= {k: v for k, v in (("model_name", model_name), ("dataset_name", dataset_name)) if v is not None}
        # The name of a tag may contain dots and dollars, which a path in a query cannot.
        query |= {"$expr": {"$and": [_has_tag(*tag) for tag in tags.items()]}} if tags else {}
        rows = self._models.find(query, sort=NEWEST_FIRST, limit=limit)
        return [_registered(row) for row in rows]

    @transient("archiving a model")
    def archive(
        self, project: str, model_name: str, version_number: int, archived_at: datetime | None
    ) -> RegisteredModel:
        version = {"project": project, "model_name": model_name, "version_number": version_number}
        changed = self._models.find_one_and_update(
            {**version, **({} if archived_at is None else NOT_ARCHIVED)},
            {"$set": {"archived_at": archived_at}},
            return_document=ReturnDocument.AFTER,
        )
        standing = self.get(project, model_name, version_number) if changed is None else _registered(changed)
        if not standing.request_id:
            raise RejectedError(
                f"{project}/{model_name} {standing.version} is of the replaced worker and never written"
            )
        return standing

    @transient("finding a model")
    def same(self, project: str, reuse_key: str) -> RegisteredModel | None:
        query = {"reuse_key": {"$gt": "", "$eq": reuse_key}, "project": project, **NUMBERED, **NOT_ARCHIVED}
        row = self._models.find_one(query, sort=[("created_at", pymongo.DESCENDING)])
        return None if row is None else _registered(row)

    @transient("adding up models")
    def usage(self, project: str) -> Usage:
        not_archived = {"archived_at": {"$not": {"$gte": datetime(1, 1, 1, tzinfo=UTC)}}}  # None would read documents
        stages: list[Document] = [
            {"$match": {"project": project, **NUMBERED, **not_archived}},
            {"$group": {"_id": None, "models": {"$sum": 1}, "bytes": {"$sum": "$artifact_bytes"}}},
        ]  # an index covers this query
        for row in self._models.aggregate(stages):
            return Usage(row["models"], row["bytes"])
        return Usage(0, 0)

    @transient("counting models")
    def count(self) -> int:
        return self._models.count_documents({}, hint="_id_")

    def _newest(self, query: Document) -> Document | None:
        return self._models.find_one(query, sort=[("version_number", pymongo.DESCENDING)])

    def _names(self, project: str) -> Sequence[str]:
        """At most NAMES models of the project, and as many legacy ones; costs one index entry per model."""
        queries: list[Document] = [{"project": project, **NUMBERED}]
        if project == LEGACY_PROJECT:
            queries.append({"project": None, "version_number": None, "model_name": {"$gt": ""}})
        names: Document = {"$group": {"_id": "$model_name"}}
        stages = [[{"$match": query}, names, {"$limit": NAMES}] for query in queries]
        return [row["_id"] for one in stages for row in self._models.aggregate(one)]

    def _insert_next(self, turn: Mapping[ModelKey, Outcome]) -> dict[str, RegisteredModel]:
        """Insert the next version of each model; return those that were not refused."""
        self._confirm([key for key in turn if key not in self._confirmed])
        models = [RegisteredModel.of(outcome, self._confirmed.get(key, 0) + 1) for key, outcome in turn.items()]
        refused = insert_new(self._models, [model.to_document() for model in models])
        inserted = [model for position, model in enumerate(models) if position not in refused]
        self._confirmed |= {(r.model.project, r.model.model_name): r.version_number for r in inserted}
        return {registered.request_id: registered for registered in inserted}

    def _confirm(self, keys: Sequence[ModelKey]) -> None:
        """Read the highest version of each model that has a v1; costs one index entry per model."""
        if not keys:
            return
        if len(self._confirmed) + len(keys) > REMEMBERED:
            self._confirmed = {}
        projects, names = {project for project, _ in keys}, {name for _, name in keys}
        own = {"project": "$project", "model_name": "$model_name"}
        same = [{"$eq": ["$project", "$$project"]}, {"$eq": ["$model_name", "$$model_name"]}]
        highest = [
            {"$match": {"$expr": {"$and": same}, **NUMBERED}},
            {"$sort": {"version_number": pymongo.DESCENDING}},
            {"$limit": 1},
            {"$project": {"_id": 0, "version_number": 1}},
        ]
        rows = self._models.aggregate(
            [
                {"$match": {"project": {"$in": [*projects]}, "model_name": {"$in": [*names]}, "version_number": 1}},
                {"$project": {"_id": 0, "project": 1, "model_name": 1}},
                {"$lookup": {"from": self._models.name, "let": own, "pipeline": highest, "as": "highest"}},
            ],
            batchSize=len(projects) * len(names) + 1,
        )
        self._confirmed |= {(row["project"], row["model_name"]): row["highest"][0]["version_number"] for row in rows}

    def _forget(self, keys: Sequence[ModelKey]) -> None:
        """Drop cached versions of models that another worker has registered since."""
        for key in keys:
            self._confirmed.pop(key, None)


def _has_tag(name: str, text: str) -> Document:
    return {"$eq": [{"$getField": {"field": {"$literal": name}, "input": "$tags"}}, {"$literal": text}]}


def _model_key(outcome: Outcome) -> ModelKey:
    model = RegisteredModel.of(outcome, 1).model
    return model.project, model.model_name


def _in_project(project: str) -> Document:
    return {"project": {"$in": [project, None]} if project == LEGACY_PROJECT else project}


def _registered(row: Mapping[str, Any]) -> RegisteredModel:
    return RegisteredModel.from_document(plain(row)) if "version_number" in row else _legacy(plain(row))


def _legacy(row: Document) -> RegisteredModel:
    """A document of the replaced worker; fields that it lacks are blank."""
    version, created_at, file_id = str(row.get("version")), row.get("created_at"), row.get("file_id")
    number = int(version[1:]) if version[:1] == "v" and version[1:].isdecimal() else 0
    metrics = row.get("metrics") or {}
    name = str(row.get("name") or row.get("model_name") or "")
    model = Model(
        model_id=str(row["_id"]),
        name=name,
        project=LEGACY_PROJECT,
        user="",
        model_name=str(row.get("model_name") or name),
        algorithm=str(row.get("algorithm") or ""),
        model_type="",
        hyperparameters=row.get("hyperparameters") or {},
        metrics={k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and math.isfinite(v)},
        dataset_name=str(row.get("dataset_name") or ""),
        dataset_fingerprint="",
        features=[str(feature) for feature in row.get("features") or ()],
        target_column=str(row.get("target_column") or ""),
        classes=(),
        artifact_uri="" if file_id is None else f"gridfs://fs/{file_id}",
        artifact_format="pickle",
        artifact_sha256="",
        artifact_bytes=0,
        file_id=None if file_id is None else str(file_id),
        training_time=float(row.get("training_time") or 0.0),
        created_at=created_at if isinstance(created_at, datetime) else row["_id"].generation_time,
        tags={},
        seed=0,
        signature=(),
        environment={},
        warnings=(),
    )
    return RegisteredModel("", "", "", number, model)
