"""Tracks the requests that this worker has in hand: the place of each, and which is trained next."""
