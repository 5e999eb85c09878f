"""`python -m consumer.cli` is `tensorfleet`."""

from consumer.cli import program

program()
