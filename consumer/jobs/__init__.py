"""The requests that this worker has in hand: where each is, and whose turn comes next."""
