"""Fixtures for all tests; those over real servers are in tests/services/fixtures.py."""

pytest_plugins = ["tests.services.fixtures"]
