"""Real servers for tests, benchmarks and development, without containers: Kafka, MongoDB, S3 and a schema registry.

`start()` of each module returns one that answers. The fixtures of the same names are in `fixtures`; `python -m
tests.services up` keeps all four running. What they need is installed once, into `.services/` (see `install`).
"""
