"""Requests that give trouble, and what is to be seen of them."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

from pymongo.database import Database

from pipeline.jobs import TrainingRequest
from schemas import RecordType
from tests.end_to_end.evidence import decode, read_topic
from tests.end_to_end.fleet import Fleet, metrics
from tests.end_to_end.test_fleet import request


def trouble(request_id: str, mode: str, seconds: float = 1, path: str = "", **more: Any) -> TrainingRequest:
    hyperparameters = {"mode": mode, "seconds": seconds, "path": path}
    return request(request_id, request_id, "troublesome", "iris", hyperparameters=hyperparameters, **more)


def outcome(database: Database[dict[str, Any]], request_id: str) -> dict[str, Any] | None:
    return database["training_outcomes"].find_one({"request_id": request_id})


def all_progress(fleet: Fleet) -> list[dict[str, Any]]:
    records = read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.training_progress)
    return [decode(record.value(), RecordType.TRAINING_PROGRESS) for record in records]


def progress(fleet: Fleet, request_id: str) -> list[dict[str, Any]]:
    return [event for event in all_progress(fleet) if event["request_id"] == request_id]


def states(fleet: Fleet, request_id: str) -> list[str]:
    """Of its progress events, in their order."""
    return [event["state"] for event in progress(fleet, request_id)]


def gauge(port: int, name: str) -> float:
    """A metric's value, 0 where it has not been counted yet."""
    return metrics(port).get(name, 0.0)


def lives(port: int) -> bool:
    """What a container's health check would find."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False
