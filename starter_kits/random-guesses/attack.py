"""Guesses each secret by drawing somebody from aux who knows it: what every other attack has to beat."""

import numpy as np
from anomed_task import Task, run


def attack(task: Task) -> None:
    aux, persons = task.table("aux"), task.table("background")
    random = np.random.default_rng(task.seed)
    guesses = persons[["row"]].copy()
    for column in task.with_role("secret"):
        known = aux[column["name"]].dropna().to_numpy()
        guesses[column["name"]] = random.choice(known, len(persons)) if len(known) else None
    task.save("guesses", guesses)


if __name__ == "__main__":
    run(attack=attack)
