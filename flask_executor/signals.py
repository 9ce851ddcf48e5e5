"""Signals about tasks, sent with :mod:`blinker` as Flask's own signals are.

The sender is the app; receivers get the task as ``task``. They run in the process that
submitted the task, on the thread where it happens, in an app context. If a receiver
raises, that is logged and changes nothing.

===========================  ==================================================
A task that                  sends
===========================  ==================================================
succeeds                     submitted, started, progressed …, succeeded
fails                        submitted, started, progressed …, failed
is tried again               submitted, then started, progressed …, retrying
                             for each attempt but the last
runs into its timeout        submitted, started, progressed …, timed out
is cancelled while it waits  submitted, cancelled
is cancelled while it runs   submitted, started, progressed …, cancelled
cannot be run                submitted, failed
===========================  ==================================================

The last signal of each row is sent exactly once, before the future ends. So when a wait
for the future is over, it has been sent.
"""

from __future__ import annotations

import typing as t

from blinker import NamedSignal, Namespace

_signals = Namespace()

task_submitted: NamedSignal = _signals.signal("task-submitted")
"""A task was accepted. Sent on the thread that submits it."""
task_started: NamedSignal = _signals.signal("task-started")
"""An attempt begins. Sent on the thread that runs it, or that waits for the worker
process."""
task_progressed: NamedSignal = _signals.signal("task-progressed")
"""The task has reported progress: ``task.progress``."""
task_retrying: NamedSignal = _signals.signal("task-retrying")
"""An attempt failed with ``error``; the next one comes in ``delay`` seconds."""
task_succeeded: NamedSignal = _signals.signal("task-succeeded")
"""The task has returned ``result``."""
task_failed: NamedSignal = _signals.signal("task-failed")
"""The task has ended with ``error``."""
task_timed_out: NamedSignal = _signals.signal("task-timed-out")
"""The task ran into its timeout; ``error`` is the :exc:`.TaskTimeout`."""
task_cancelled: NamedSignal = _signals.signal("task-cancelled")
"""The task was cancelled."""


def send(
    signal: NamedSignal,
    app: t.Any,
    failed: t.Callable[[t.Any, BaseException], object],
    **facts: t.Any,
) -> None:
    """Send a signal to each of its receivers.

    :param failed: called with a receiver that raised, and with its exception.
    """
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **facts)
        except BaseException as error:
            failed(receiver, error)
