"""Run in a process of its own: seconds to a method's first answer, by clock and processor, and MB.

    python cold_start.py METHOD BACKBONE

Random pictures, so that no file is read: the backbone is loaded, 24 pictures of 8 things are
taught and one is asked, whichever the method. The last line is JSON.
"""

import time

START = time.perf_counter()

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402

import numpy as np  # noqa: E402

WAY, SHOTS = 8, 3


def main() -> None:
    """Teach and ask one method."""
    warnings.simplefilter("ignore")
    from bayesfs.features.backbones.spec import remade
    from bayesfs.training.shared_population import default_population
    from peer_parts.photo_methods import FITS, OURS, answer_of

    name, spec = sys.argv[1:]
    backbone = remade(default_population(spec).backbone)
    size = (WAY * SHOTS + 1, backbone.px, backbone.px, 3)
    x = backbone(np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    label = np.repeat(np.arange(WAY), SHOTS)
    if name in OURS:
        answer_of(OURS[name](spec), x[:-1], label, x[-1:], label[:1])
    else:
        FITS[name][1](x[:-1], label)(x[-1:])
    seconds = time.perf_counter() - START
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"cold_start_s": seconds, "cold_start_cpu_s": time.process_time(), "memory_mb": memory}
    print(json.dumps({name: round(value, 3) for name, value in told.items()}))


if __name__ == "__main__":
    sys.path.insert(0, __file__.rsplit("/", 2)[0])
    main()
