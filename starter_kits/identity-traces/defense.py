"""Hands out every trace as it was recorded, under its token: as useful as can be, and nobody is protected."""

from anomed_task import Task, run


def release(task: Task) -> None:
    task.save("release", task.table("traces"))


if __name__ == "__main__":
    run(release=release)
