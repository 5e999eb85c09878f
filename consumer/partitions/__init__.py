"""What this worker owns of the requests topic: reading it, what is finished, and which offsets may be committed."""
