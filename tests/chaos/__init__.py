"""Faults of every kind, and what came of the requests meanwhile.

`python -m tests.chaos` runs a fleet on real services under a seeded workload, a seeded nemesis, and a checker that
knows neither; the other modules play single crash points.  What came of it is in docs/reliability.md.
"""
