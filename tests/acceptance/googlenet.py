"""What GoogLeNet reaches on the held-out digits: top-1 .98, above logistic regression.

    .venv/bin/python tests/acceptance/googlenet.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

Six minutes on two cores.
"""

import sys

from _runs import Wanted, logistic_regression, main, support_vector_machine

from apps.recipes import googlenet

RUNS = {
    "digits": Wanted(
        what="digits, top-1",
        figure="top1",
        goal=0.98,
        command="tfzoo train googlenet",
        published="top-5 error of 6.67 % on ImageNet, other data and size (Szegedy et al., 2014)",
        best=support_vector_machine(),
        options=googlenet.DEFAULTS,
    )
}

if __name__ == "__main__":
    sys.exit(main(__doc__, "googlenet", RUNS, logistic_regression))
