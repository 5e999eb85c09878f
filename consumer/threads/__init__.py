"""The threads beside the worker's own: how they get orders, answer, are watched and end."""
