"""Keeps the worker's metrics, and configures its logs."""
