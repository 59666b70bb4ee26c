"""The starter kit `dp-sgd` at another epsilon, which the environment names."""

import os

import defense
from anomed_task import run

defense.EPSILON = float(os.environ["EPSILON"])
run(fit=defense.fit, predict=defense.predict)
