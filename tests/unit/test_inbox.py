"""The worker's inbox: in order, readable while something waits, and never longer at a time than it may take."""

import select
import time

from consumer.threads.inbox import Inbox


def readable(inbox: Inbox) -> bool:
    return bool(select.select([inbox], [], [], 0)[0])


def test_messages_come_in_order_and_the_inbox_is_readable_while_there_are_any() -> None:
    inbox = Inbox()
    assert not readable(inbox)
    for number in range(3):
        inbox.put(number)
    assert readable(inbox)
    assert list(inbox.take(1.0)) == [0, 1, 2]
    assert not readable(inbox)


def test_the_thread_can_be_woken_without_a_message() -> None:
    inbox = Inbox()
    inbox.wake()
    assert readable(inbox)
    assert not list(inbox.take(1.0))
    assert not readable(inbox)


def test_what_there_is_no_time_for_is_left_and_keeps_the_inbox_readable() -> None:
    """So that a thousand messages do not keep the worker from its lanes."""
    inbox = Inbox()
    for number in range(100):
        inbox.put(number)
    taken = []
    for message in inbox.take(0.02):
        taken.append(message)
        time.sleep(0.005)
    assert 0 < len(taken) < 20
    assert readable(inbox)
    assert taken + list(inbox.take(1.0)) == list(range(100))
