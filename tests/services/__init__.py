"""Real servers for tests, benchmarks and development, without containers: Kafka, MongoDB, S3 and a schema registry.

`start()` of each module returns one that answers. The fixtures of the same names are in `fixtures`; `python -m
tests.services up` keeps all four running. `kafka.start_cluster()` starts three nodes, to lose one of
them, and `Kafka.proxy()` puts a network before a node, to cut it. What all need is installed once, into `.services/`
(see `install`).

Servers that run already are used where the environment says so: TENSORFLEET_TEST_KAFKA (bootstrap servers),
TENSORFLEET_TEST_MONGODB (URL), TENSORFLEET_TEST_S3 (endpoint; with …_S3_ACCESS_KEY and …_S3_SECRET_KEY),
TENSORFLEET_TEST_SCHEMA_REGISTRY (URL). Tests that stop a server are skipped on those.
"""
