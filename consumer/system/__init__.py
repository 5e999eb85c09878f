"""What the operating system is asked: disk, CPUs and memory, processes."""
