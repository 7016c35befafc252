"""What the Vision Transformer reaches on the held-out digits: top-1 .96, above logistic regression.

    .venv/bin/python tests/acceptance/vit.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

About a quarter of an hour on two cores.
"""

import sys

from _runs import Wanted, logistic_regression, main, support_vector_machine

from apps.recipes import vit

RUNS = {
    "digits": Wanted(
        what="digits, top-1",
        figure="top1",
        goal=0.96,
        command="tfzoo train vit",
        published="81.072 % on ImageNet, vit_b_16 of torchvision, other data and size",
        best=support_vector_machine(),
        options=vit.DEFAULTS,
    )
}

if __name__ == "__main__":
    sys.exit(main(__doc__, "vit", RUNS, logistic_regression))
