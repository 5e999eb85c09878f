"""What the worker costs and how it holds, measured on real servers against bare processes that train the same jobs.

`python -m benchmarks` (`make bench`); docs/benchmarks.md has the method and the last figures.
"""
