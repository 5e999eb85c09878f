"""What a tiny job costs, counted and not timed: the same on every machine, so that a test can fail when it grows.

`cases` runs the worker, built as `consumer.app` builds it, on a real MongoDB and S3 and a Kafka in memory. One thread
takes every step, by a clock that stands still in between. `counting` counts meanwhile, `figures` compares with what is
recorded in figures.json; `python -m tests.budget` shows the figures, and with `--record` records them.
"""
