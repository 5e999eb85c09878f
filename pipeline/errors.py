"""Errors, named by what the worker does with them.  Any other exception is a bug."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_SAID = 1_000


class RejectedError(Exception):
    """The request itself is wrong: it goes to the dead letters and is not tried again.

    The message tells the sender of the request what is wrong and what would be right.
    """


class WorseError(RejectedError):
    """A version is not promoted: it is worse than the current one, or cannot be compared with it."""


class TransientError(Exception):
    """A service did not answer; the same call may succeed later.  The worker waits and retries."""

    def __init__(self, service: str, message: str) -> None:
        super().__init__(f"{service}: {message}")
        self.service = service


class AccessDeniedError(Exception):
    """A service refuses us: our credentials or rights are wrong.  The worker cannot continue."""

    def __init__(self, service: str, message: str) -> None:
        super().__init__(f"{service}: {message}")


class ProducerLostError(Exception):
    """A Kafka producer can no longer send: the worker restarts with a new one."""


class TrainingFailed(Exception):  # noqa: N818 - an outcome, not an error of the worker
    """The training ended in an error that another try would only repeat."""


class SupersededError(Exception):
    """A newer process runs under our worker_id: nothing that we still do may count.  Exit at once."""


class CorruptArtifactError(Exception):
    """Stored bytes do not have the sha256 that was recorded for them, or are not a model file of ours."""


class NotFoundError(Exception):
    """Something asked for by name does not exist; the message lists similar names."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: asks for up to two similar known ones; empty if there are none."""
    near = get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


_CLASS = re.compile(r"\b[\w.]{0,100}(?:Error|Exception)\b:? *")


def said_by(error: BaseException) -> str:
    """A library's error message in one line, for the sender of the request: without exception class or local paths.

    Not for errors of a service's client: these quote hosts.
    """
    number = error.errno if isinstance(error, OSError) else None
    text = str(error) if number is None or number not in errno.errorcode else os.strerror(number)
    nothing = "it took too long" if isinstance(error, TimeoutError) else "it gave no reason"
    return _CLASS.sub("", text.strip().partition("\n")[0][:LONGEST_SAID]) or nothing
