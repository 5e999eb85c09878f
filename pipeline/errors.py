"""Errors, named by what the worker does with them.  Any other exception is a bug."""

from __future__ import annotations

import errno
import os
import re

LONGEST_SAID = 1_000


class RejectedError(Exception):
    """The request itself is wrong: it goes to the dead letters and is never tried again.

    The message is for the person who sent the request: what is wrong, and what would be right.
    """


class WorseError(RejectedError):
    """A version is not promoted: it is worse than the present one, or nothing shows that it is not."""


class TransientError(Exception):
    """A service did not answer; the same call may succeed later.  The worker waits and retries."""

    def __init__(self, service: str, message: str) -> None:
        super().__init__(f"{service}: {message}")
        self.service = service


class AccessDeniedError(Exception):
    """A service refuses what we ask of it: our credentials or rights are wrong.  The worker cannot go on."""

    def __init__(self, service: str, message: str) -> None:
        super().__init__(f"{service}: {message}")


class ProducerLostError(Exception):
    """A producer of ours can send nothing any more: the worker starts again with a new one."""


class TrainingFailed(Exception):  # noqa: N818 - a verdict, not a malfunction of ours
    """The training ended in an error that trying again would only repeat."""


class SupersededError(Exception):
    """A newer process runs under our worker_id: nothing that we still do may count.  Exit at once."""


class CorruptArtifactError(Exception):
    """Stored bytes do not have the sha256 that was recorded for them, or are no model file of ours."""


class NotFoundError(Exception):
    """What was asked for by name does not exist; the message lists what is near."""


_CLASS = re.compile(r"\b[\w.]{0,100}(?:Error|Exception)\b:? *")


def said_by(error: BaseException) -> str:
    """What a library's error says, in one line for the person who sent the request: no class, no path of this machine.

    Nothing of a client of a service, whose errors quote hosts.
    """
    number = error.errno if isinstance(error, OSError) else None
    text = str(error) if number is None or number not in errno.errorcode else os.strerror(number)
    nothing = "it took too long" if isinstance(error, TimeoutError) else "it gave no reason"
    return _CLASS.sub("", text.strip().partition("\n")[0][:LONGEST_SAID]) or nothing
