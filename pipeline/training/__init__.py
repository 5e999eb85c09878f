"""One training, from its request to its model file, and the checks before it."""
