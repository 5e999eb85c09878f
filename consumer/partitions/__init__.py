"""Reads this worker's partitions of the requests topic, and tracks which offsets may be committed."""
