"""The registration protocol (docs/adr/0001) as a state machine that is explored completely, and real parts beside it.

`world` has the states, `steps` what can happen in them, `laws` what must hold, `exploration` goes through all of them.
`python -m tests.protocol` prints how many states there are.
"""
