"""Fixtures for all tests; those over real servers are in services, proofs of checkers in proofs."""

pytest_plugins = ["tests.proofs", "tests.services.fixtures"]
