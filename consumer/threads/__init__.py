"""The threads beside the worker's own: how they get orders, answer, are watched and end."""
# Imports nothing: `watcher` runs in a process of its own.
