"""Row 10: do prediction sets cover what they promise, user by user?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from accuracy import as_split

from bayesfs.decisions.prediction_sets import rank_of
from bayesfs.decisions.queries import Judged, judged
from bayesfs.decisions.rules import unit_rules
from bayesfs.study import Learnt, Study
from uncertainty_parts.bench import Bench, Found


def left_out_train_users(bench: Bench, study: Study) -> Judged:
    """Frames of every train user, by a population that was learnt on the other train users."""
    train = bench.data.where(split="train")
    parts = []
    for user in sorted(set(train.coord("user").tolist())):
        fold = as_split(train, [user])
        learnt = study.learn(fold, seed=0)
        answer = study.infer(study.tasks(fold, learnt, seed=0), learnt, seed=0)
        parts.append(judged(answer.predictive, answer.episodes, "frame"))
    return joined(parts)


def joined(parts: Sequence[Judged]) -> Judged:
    """The queries of several batches."""
    way = max(part.prob.shape[1] for part in parts)
    wide = [np.pad(p.prob, ((0, 0), (0, way - p.prob.shape[1]))) for p in parts]
    rest = {n: np.concatenate([getattr(p, n) for p in parts]) for n in ("user", "label", "absent")}
    return Judged(prob=np.concatenate(wide), **rest)


def row_10(bench: Bench, study: Study, learnt: Learnt) -> Found:
    """Prediction sets of frames, calibrated across left-out train users: each test user's cover."""
    known = left_out_train_users(bench, study)
    rules = unit_rules(known, level=0.9, share=0.9, risk=0.1, rejected=0.05)
    tasks = study.tasks(bench.data, learnt, seed=0)
    prob = study.infer(tasks, learnt, seed=0).predictive.frame.prob.numpy()
    label, mask = tasks.query_labels.numpy(), tasks.query_mask.numpy()
    sets = rules.in_set(prob)
    plain = np.sort(prob, -1)[..., ::-1].cumsum(-1)
    size = (plain < 0.9).sum(-1) + 1
    order = (-prob).argsort(-1).argsort(-1)
    covered = np.take_along_axis(sets, label[:, :, None, None], -1)[..., 0]
    naive = np.take_along_axis(order, label[:, :, None, None], -1)[..., 0] < size
    users = np.array(tasks.users)
    count = len(set(known.user.tolist()))
    promised = rank_of(count, 0.9) / (count + 1)
    print(f"sets at 90 %, frames (promised to {promised:.0%} of users, from {count}):")
    shares = []
    for user in sorted(set(users.tolist())):
        own = mask & (users == user)[:, None, None]
        shares.append(float(covered[own].mean()))
        print(
            f"  {user}: coverage {shares[-1]:.3f}, size {sets[own].sum(-1).mean():.2f}; "
            f"highest probabilities up to .9: {naive[own].mean():.3f}, {size[own].mean():.2f}"
        )
    return {"t10_users_covered": float(np.mean([s >= 0.88 for s in shares]))}
