"""Datasets are read in processes of their own: other people's bytes may crash, stall or swell whatever parses them.

    readiness threads ── Loaders ──socket──▶ loader: reads a file of bytes, writes a file of rows, says how it went
                              │
                              └── one thread a load: time, memory, and whether anybody still waits for it

A loader lives on from load to load. It has no credential and no client of any service, runs behind all else (nice),
leads a session of its own, and the kernel ends it when the worker is gone.
"""
