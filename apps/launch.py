"""Start a training as several worker processes on this machine, and stop all of them when one fails."""

import contextlib
import json
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Annotated, TextIO

from typer import Argument, Option

from apps import RunFailed

ACCEPTED = ("train",)
GRACE = 3  # seconds that the others have when one fails: they may be about to report the very same error
PATIENCE = 30  # seconds that all have to end after a signal
PREEMPTED = 128 + signal.SIGTERM
GOES_ON = "its run goes on where the last checkpoint is: give the same command again"


def run(
    command: Annotated[
        list[str] | None, Argument(metavar="COMMAND", help="What every worker runs, after `--`: train NAME ...")
    ] = None,
    workers: Annotated[int, Option(min=1, help="How many processes.")] = 2,
) -> int:
    """Run the command."""
    command = command or []
    if command[:1] not in [[name] for name in ACCEPTED]:
        raise ValueError(
            f"launch starts a command of several workers. Received: {command[0] if command else 'no command'}. "
            f"Accepted: {', '.join(ACCEPTED)}. Try: tfzoo launch --workers {workers} -- train NAME"
        )
    if os.environ.get("TF_CONFIG"):
        raise ValueError(
            "launch gives every worker its own TF_CONFIG, but this process already is a worker. "
            f"Received: TF_CONFIG={os.environ['TF_CONFIG']}. Accepted: none. "
            f"Unset it, or run the command itself: tfzoo {' '.join(command)}"
        )
    # -P: a folder `apps` where the user works is not this one.
    return supervise([[sys.executable, "-P", "-m", "apps", *command]] * workers, environments(workers))


def environments(workers: int) -> list[dict[str, str]]:
    """Give every worker this process' environment and its own place in the cluster.

    Args:
        workers: How many there are.

    Returns:
        The environment of each.
    """
    root = str(pathlib.Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(workers)]}
    return [
        {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        }
        for index in range(workers)
    ]


def free_ports(count: int) -> list[int]:
    """Find ports that are free now; all are held until the last is found, so no two are the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def supervise(
    commands: list[list[str]], environments: list[dict[str, str]], grace: float = GRACE, patience: float = PATIENCE
) -> int:
    """Run processes side by side until all have ended; when one fails, or at a signal, end the others too.

    SIGTERM and the first Ctrl-C are passed on; the second Ctrl-C kills. No worker outlives this function.

    Args:
        commands: What each worker runs.
        environments: The environment of each.
        grace: Seconds that the others have when one fails.
        patience: Seconds that all have to end after a signal.

    Returns:
        0 if all gave 0; 130 after Ctrl-C; 143 if they were stopped by SIGTERM; else what the first that failed gave.

    Raises:
        RunFailed: The first that failed was ended by a signal or did not come to its end.
        OSError: A process could not be started, or this one's output could not be written.
    """
    workers: list[subprocess.Popen] = []
    readers: list[threading.Thread] = []
    faults: list[OSError] = []  # of writing what the workers say
    failed: dict[int, int] = {}  # worker -> exit code, in the order in which they failed by themselves
    killed: set[int] = set()
    handled, deadline = 0, math.inf
    with signals_received() as received:
        try:
            lock = threading.Lock()
            for index, (command, environment) in enumerate(zip(commands, environments, strict=True)):
                workers.append(start(command, environment))
                for pipe, stream in ((workers[-1].stdout, sys.stdout), (workers[-1].stderr, sys.stderr)):
                    arguments = (pipe, stream, f"[worker {index}] ", lock, faults)
                    readers.append(threading.Thread(target=relay, args=arguments, daemon=True))
                    readers[-1].start()
            running = dict(enumerate(workers))
            while running:
                for index, worker in list(running.items()):
                    if worker.poll() is not None:
                        del running[index]
                        kill(worker)  # what it started itself
                        if worker.returncode and index not in killed:
                            failed[index] = worker.returncode
                if faults:
                    raise faults[0]
                now = time.monotonic()
                while handled < len(received):
                    number, again = received[handled], received[handled] in received[:handled]
                    handled += 1
                    if not again:
                        deadline = min(deadline, now + patience)
                        for worker in running.values():
                            worker.send_signal(number)
                    elif number == signal.SIGINT:
                        deadline = now
                if failed and deadline == math.inf:
                    preempted = next(iter(failed.values())) == PREEMPTED  # the others may be saving
                    deadline = now + (patience if preempted else grace)
                if now >= deadline:
                    for index, worker in running.items():
                        killed.add(index)
                        kill(worker)
                time.sleep(0.05)
        finally:
            for worker in workers:
                if worker.poll() is None:
                    kill(worker)
                    worker.wait()
            for reader in readers:
                reader.join(timeout=5)
    return verdict(failed, killed, received, patience)


@contextlib.contextmanager
def signals_received() -> Iterator[list[int]]:
    """Collect signals that would end this process, first to last; one that is ignored, as nohup does, stays ignored.

    A terminal that closes tells only this process, by SIGHUP: to the workers that is SIGTERM.
    """
    received: list[int] = []

    def note(number: int, _) -> None:
        received.append(signal.SIGTERM if number == signal.SIGHUP else number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(command: list[str], environment: dict[str, str]) -> subprocess.Popen:
    """Start a worker in a session of its own, so that the terminal's Ctrl-C comes to it only once, from here."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def kill(worker: subprocess.Popen) -> None:
    """Kill a worker and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)


def relay(pipe: TextIO, stream: TextIO, prefix: str, lock: threading.Lock, faults: list[OSError]) -> None:
    """Copy lines as they come, each with a prefix.

    Args:
        pipe: What a worker writes; read to its end in any case, as a full pipe would hold the worker up.
        stream: Where the lines go.
        prefix: What is put before each.
        lock: Held while a line is written, so that lines are not mixed.
        faults: Takes the error when a line cannot be written.
    """
    with pipe:
        for line in pipe:
            text = prefix + line.rstrip("\n") + "\n"
            encoding = stream.encoding or "utf-8"
            try:
                with lock:
                    stream.write(text.encode(encoding, "replace").decode(encoding))
                    stream.flush()
            except OSError as error:
                faults.append(error)


def verdict(failed: dict[int, int], killed: set[int], received: list[int], patience: float) -> int:
    """Decide how the launch ends; the first worker that failed by itself says why, as the others may only miss it.

    Args:
        failed: The exit codes of workers that failed by themselves, in the order in which they did.
        killed: The workers that were killed because of another or of a signal.
        received: The signals that came to this process.
        patience: Seconds that the workers had to end after a signal.

    Returns:
        The exit code.

    Raises:
        RunFailed: A worker was ended by a signal, did not come to its end, or had to be killed after SIGTERM.
    """
    if not failed and not killed:
        return 0
    if signal.SIGINT in received:
        return 128 + signal.SIGINT
    index, code = next(iter(failed.items()), (None, PREEMPTED))
    if code == PREEMPTED or (received and code == -signal.SIGTERM):
        if received and killed:
            names = " and ".join(f"worker {index}" for index in sorted(killed))
            raise RunFailed(f"{names} did not end within {patience:g} s of SIGTERM, so SIGKILL was sent; {GOES_ON}")
        return PREEMPTED
    if code in (1, 2):
        print(f"error: worker {index} ended with exit code {code}; what it said is above", file=sys.stderr)
        return code
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    raise RunFailed(f"worker {index} {how}; {GOES_ON}")
