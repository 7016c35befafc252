"""The whole suite with every combination of options, of which `make test` takes those in which every two meet.

.venv/bin/python tests/acceptance/every_case.py [--output FILE]      about half an hour on two cores
"""

import re
import subprocess
import sys
import time

from _record import ROOT, options, write


def main() -> int:
    arguments = options(__doc__).parse_args()
    command = [sys.executable, "-m", "pytest", "--every-case", "-q", "--numprocesses", "2", "--dist", "worksteal"]
    start = time.monotonic()
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    last = ""
    for line in running.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    found = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    write(arguments.output, found, seconds=time.monotonic() - start)
    return running.wait()


if __name__ == "__main__":
    sys.exit(main())
