"""Runs the threads beside the worker's own: their orders, answers, retries and end, and the watch over them."""
# Imports nothing: `watch_process` runs in a process of its own.
