"""Releases the table as it is: as useful as can be, and everybody in it can be looked up."""

from anomed_cells import save_release
from anomed_task import Task, run


def release(task: Task) -> None:
    save_release(task, task.table("table"), "same")


if __name__ == "__main__":
    run(release=release)
