"""Run by an interpreter that has adaptshot (its own environment): tasks in, answers out, as JSON.

    python -m venv adaptshot && adaptshot/bin/pip install adaptshot==0.3.0
    adaptshot/bin/python adaptshot_runner.py < tasks.json > answers.json

It has a picture's class and the calibrated probability of that one, which leaves the others what
is left; its sets are asked to hold the class nine times in ten.
"""

import json
import resource
import sys
import time

START = time.perf_counter()


def main() -> None:
    """Teach and ask every task of the standard input."""
    from adaptshot import FewShotLearner

    tasks = json.load(sys.stdin)
    answers, cold = [], 0.0
    for task in tasks:
        learner = FewShotLearner(conformal_alpha=0.1, max_buffer_size=1000, verbose=False)
        begin = time.perf_counter()
        learner.load_support_images(task["teach"], task["label"])
        taught = time.perf_counter()
        found = [learner.predict(path) for path in task["ask"]]
        done = time.perf_counter()
        cold = cold or taught - START
        answers.append(
            {
                "named": [int(f.prediction) for f in found],
                "prob": [float(f.calibrated_confidence) for f in found],
                "sets": [[int(k) for k in f.conformal_set or []] for f in found],
                "teach_s": taught - begin,
                "answer_s": (done - taught) / max(len(found), 1),
            }
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"answers": answers, "cold_start_s": cold, "memory_mb": memory}, sys.stdout)


if __name__ == "__main__":
    main()
