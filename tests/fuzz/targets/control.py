"""Commands of the control topic."""

from __future__ import annotations

from random import Random

from consumer.events.control import read_control
from consumer.events.errors import UndecodableError
from schemas import RecordType
from tests.fuzz import records
from tests.fuzz.targets.requests import TIMESTAMPS_MS, check_message, stored


def run(random: Random) -> None:
    value = records.value(random, RecordType.TRAINING_CONTROL)
    try:
        command = read_control(records.codec(), value, timestamp_ms=random.choice(TIMESTAMPS_MS))
    except UndecodableError as error:
        check_message(str(error))
        raise
    if command is not None:
        cancel = command.cancel
        stored(
            {
                "_id": command.request_id,
                "cancel": {"reason": cancel.reason, "user": cancel.user, "requested_at": cancel.requested_at},
            }
        )
