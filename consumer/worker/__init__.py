"""The worker's main thread: it owns every job and takes each step of a request's way."""
