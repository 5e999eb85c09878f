"""Reads datasets in processes of their own, as foreign bytes may crash, stall or bloat their parser.

    readiness threads ── Loaders ──socket──▶ loader: reads a file of bytes, writes a file of rows, says how it went
                              │
                              └── one thread a load: time, memory, and whether anybody still waits for it

A loader is reused from load to load. It has no credential and no client of any service, runs at low priority (nice),
leads a session of its own, and the kernel kills it when the worker is gone.
"""
