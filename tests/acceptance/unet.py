"""What the U-Net's recipes reach on held-out pictures: IoU .80 is to be had in minutes, .92 in a quarter of an hour.

    .venv/bin/python tests/acceptance/unet.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

Three seeds of "demo" take about a quarter of an hour on two cores, three of "full" less than an hour.
"""

import sys

from _runs import Wanted, main

from apps.recipes import unet

SHOWN = {
    "what": "digits on photographs, IoU of the foreground",
    "figure": "iou",
    "published": "0.920 on PhC-U373, other data (Ronneberger et al., 2015, table 2)",
    "best": "1: the masks are exact",
}
RUNS = {
    "demo": Wanted(**SHOWN, goal=0.80, command="tfzoo demo", options=unet.DEMO),
    "full": Wanted(**SHOWN, goal=0.92, command="tfzoo train unet", options=unet.DEFAULTS),
}

if __name__ == "__main__":
    sys.exit(main(__doc__, "unet", RUNS))
