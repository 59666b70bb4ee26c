"""Draws patients from the training data, with replacement, and calls them synthetic: half of them are in the table."""

from anomed_task import Task, run


def release(task: Task) -> None:
    task.save_release(task.table("train").sample(task.rows, replace=True, random_state=task.seed))


if __name__ == "__main__":
    run(release=release)
