"""Runs trainings in processes of their own: forked warm, fed one job ahead, limited, and killed as a group.

    worker thread ── lanes ──control socket──▶ forkserver ──fork──▶ child (one a lane)
                       │                                             ▲
                       └────── inbox: one datagram a job ────────────┘ outbox: taken, progress, done

A child leads its own session, so that killing its group also kills what it started. When the worker dies, the
forkserver sees its control socket close and kills every group it knows; when the forkserver dies, the kernel kills the
children. None of these processes has a client or a credential of any service.
"""
