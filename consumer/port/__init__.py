"""Serves the worker's only port: /health, /livez and /metrics."""
