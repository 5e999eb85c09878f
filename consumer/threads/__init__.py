"""What the worker's threads share.  `watcher` runs in a process of its own: this file imports nothing."""
