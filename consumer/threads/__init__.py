"""Runs the threads beside the worker's own: their orders, answers, retries and end, and the watch over them."""
# Imports nothing: `watcher` runs in a process of its own.
