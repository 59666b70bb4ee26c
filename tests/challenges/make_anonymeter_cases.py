"""Makes anonymeter_cases.json: residual risks on random counts, as the package Anonymeter computes them.

    pip install --no-deps anonymeter==1.1.0    # of its parts only the one for rates is used, which needs scipy alone
    python make_anonymeter_cases.py

Anonymeter (Giomi et al., PoPETs 2023) wants a numpy older than ours, so that it cannot be one of our dependencies.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from anonymeter.stats.confidence import EvaluationResults

CASES = 400


def main() -> None:
    random = np.random.default_rng(2023)
    cases = []
    warnings.simplefilter("ignore")  # it also compares with an attack that knows nothing, which is of no interest here
    for _case in range(CASES):
        n_attack, n_control = (int(10 ** random.uniform(0, 5)) for _side in range(2))
        hits_attack, hits_control = (int(random.integers(0, n + 1)) for n in (n_attack, n_control))
        confidence = float(random.choice([0.68, 0.9, 0.95, 0.99]))
        found = EvaluationResults((n_attack, 1, n_control), hits_attack, 0, hits_control, confidence).risk()
        given = [n_attack, hits_attack, n_control, hits_control, confidence]
        cases.append([*given, float(found.value), *(float(bound) for bound in found.ci)])
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name("anonymeter_cases.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
