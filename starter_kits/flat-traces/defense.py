"""Hands out the same flat line for everybody, the middle of what the columns may hold. Looks at nobody."""

from anomed_task import Task, run


def release(task: Task) -> None:
    traces = task.table("traces")
    for column in task.columns:
        if column["name"] in traces:
            traces[column["name"]] = round((column["minimum"] + column["maximum"]) / 2)
    task.save("release", traces)


if __name__ == "__main__":
    run(release=release)
