"""Fuzzing: cases made from the Avro schemas and from what people store, through the real code.

A case ends accepted, or refused by an error that the project names, within a second of CPU time and a bounded amount of
memory; anything else is a find.  Each case is made by a random generator of its own, so that its seed gives it again:

    python -m tests.fuzz --seed 1 --cases 50000
    python -m tests.fuzz --replay requests:1/4711

`case` has the rules, `kinds` what is tried, `pool` the processes; `values`, `avro` and `mutation` make what is sent.
"""
