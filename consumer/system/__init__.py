"""Asks the operating system about disk, CPUs, memory and processes."""
