"""Decides what the values of a column are, the same whatever file they came in, and says what was decided."""
