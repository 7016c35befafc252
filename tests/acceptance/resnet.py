"""What ResNet and ResNeXt reach on the held-out digits: top-1 .98, above logistic regression.

    .venv/bin/python tests/acceptance/resnet.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

About five minutes on two cores.
"""

import sys

from _runs import Wanted, logistic_regression, main, support_vector_machine

from apps.recipes import resnet

SHOWN = {
    "figure": "top1",
    "goal": 0.98,
    "best": support_vector_machine(),
}
RESNEXT = {"block": "bottleneck", "cardinality": 8, "group_width": 16}
RUNS = {
    "resnet": Wanted(
        what="digits, ResNet, top-1",
        command="tfzoo train resnet",
        options=resnet.DEFAULTS,
        published="error of 8.75 % on CIFAR-10, other data and size (He et al., 2015, table 6)",
        **SHOWN,
    ),
    "resnext": Wanted(
        what="digits, ResNeXt, top-1",
        command="tfzoo train resnet " + " ".join(f"--set {k}={v}" for k, v in RESNEXT.items()),
        options={**resnet.DEFAULTS, "settings": RESNEXT},
        published="77.618 % on ImageNet, resnext50_32x4d of torchvision, other data and size",
        **SHOWN,
    ),
}

if __name__ == "__main__":
    sys.exit(main(__doc__, "resnet", RUNS, logistic_regression))
