"""Trainings run in processes of their own: forked warm, fed one job ahead, limited, and killed as a whole group.

    worker thread ── lanes ──control socket──▶ forkserver ──fork──▶ child (one a lane)
                       │                                             ▲
                       └────── inbox: one datagram a job ────────────┘ outbox: taken, progress, done

A child is the leader of its own session, so that killing its group reaches whatever it started. When the worker dies
in any way, the forkserver sees its control socket close and kills every group it knows; when the forkserver dies, the
kernel kills the children. Nothing in these processes has a client or a credential of any service.
"""
