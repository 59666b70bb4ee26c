"""What the clusters call: a wake-up in `runs`, the reaper's round in `web`."""

from django_q.tasks import async_task


def send_wakeup() -> None:
    """Tells one worker to look for due runs. Joins the caller's transaction, because the broker is the database."""
    async_task("sandbox.tasks.wake", cluster="runs")


def wake() -> int:
    """Drives due runs until none is left for this worker; returns how many."""
    from sandbox import worker  # keeps the engine's libraries out of processes that only send wake-ups

    return worker.work()


def sweep() -> None:
    """The reaper's round."""
    from sandbox import reaper  # as above

    reaper.sweep()
