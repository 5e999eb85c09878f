"""Aliases in MongoDB: one document each, in the collection `model_aliases`.

`unannounced` tells whether `announced_sequence` is behind `sequence`; each write sets all three at once.  It is there
for its index: all workers ask every few seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pymongo import ReturnDocument
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from pipeline.aliases import Alias, AliasChange, AliasChangeReason
from pipeline.databases.mongodb import Document, create_index, durable, transient

UNANNOUNCED = {"unannounced": True}


class MongoAliases:
    """Implements pipeline.aliases.AliasStore; safe for several threads."""

    def __init__(self, database: Database[Document], collection: str = "model_aliases") -> None:
        self._aliases = durable(database)[collection]

    @transient("preparing the aliases")
    def prepare(self) -> None:
        create_index(self._aliases, ["project", "model_name", "alias"], unique=True)
        create_index(self._aliases, "unannounced", partialFilterExpression=UNANNOUNCED)

    @transient("reading an alias")
    def get(self, project: str, model_name: str, alias: str) -> Alias | None:
        row = self._aliases.find_one({"_id": _id(project, model_name, alias)})
        return None if row is None else _alias(row)

    @transient("listing aliases")
    def list(self, *, project: str | None = None, model_name: str | None = None) -> Sequence[Alias]:
        wanted = {"project": project, "model_name": model_name}
        query = {name: value for name, value in wanted.items() if value is not None}
        return [_alias(row) for row in self._aliases.find(query).sort(["project", "model_name", "alias"])]

    @transient("changing an alias")
    def change(self, project: str, model_name: str, alias: str, change: AliasChange) -> Alias | None:
        key = _id(project, model_name, alias)
        entry = {**asdict(change), "reason": change.reason.value}
        if change.sequence == 1:
            names = {"project": project, "model_name": model_name, "alias": alias}
            row = {"_id": key, **names, "sequence": 1, "announced_sequence": 0, "history": [entry], **UNANNOUNCED}
            try:
                self._aliases.insert_one(row)
            except DuplicateKeyError:
                return self._if_there(project, model_name, alias, change)
            return _alias(row)
        changed = self._aliases.find_one_and_update(
            {"_id": key, "sequence": change.sequence - 1},
            {"$push": {"history": entry}, "$set": {"sequence": change.sequence, **UNANNOUNCED}},
            return_document=ReturnDocument.AFTER,
        )
        return self._if_there(project, model_name, alias, change) if changed is None else _alias(changed)

    @transient("finding unannounced aliases")
    def unannounced(self) -> Sequence[Alias]:
        return [_alias(row) for row in self._aliases.find(UNANNOUNCED)]

    @transient("noting an announced alias")
    def announced(self, alias: Alias) -> None:
        key = _id(alias.project, alias.model_name, alias.alias)
        announced = {"announced_sequence": {"$max": ["$announced_sequence", alias.sequence]}}
        behind = {"unannounced": {"$gt": ["$sequence", "$announced_sequence"]}}
        self._aliases.update_one({"_id": key}, [{"$set": announced}, {"$set": behind}])

    def _if_there(self, project: str, model_name: str, alias: str, change: AliasChange) -> Alias | None:
        found = self.get(project, model_name, alias)
        return found if found is not None and change in found.history else None


def _id(*names: str) -> str:
    return "/".join(names)


def _alias(row: Mapping[str, Any]) -> Alias:
    history = tuple(AliasChange(**{**one, "reason": AliasChangeReason(one["reason"])}) for one in row["history"])
    return Alias(row["project"], row["model_name"], row["alias"], history, row["announced_sequence"])
