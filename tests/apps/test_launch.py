import errno
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from apps import RunFailed, launch

ROOT = pathlib.Path(launch.__file__).parents[1]
ENDLESS = "import time; print('ready', flush=True); time.sleep(60)"
TERMINATED = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print('ready', flush=True); "
    "time.sleep(60)"
)
STUBBORN = TERMINATED.replace("lambda *_: sys.exit(143)", "signal.SIG_IGN")
INTERRUPTED = "import time\nprint('ready', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: exit(130)"
DEAF = INTERRUPTED.replace("exit(130)", "print('heard', flush=True); time.sleep(60)")
FAMILY = "import os, time\npid = os.fork()\nif pid: print(pid, flush=True); exit({code})\ntime.sleep(60)"


def supervise(*programs, **options):
    return launch.supervise(
        [[sys.executable, "-c", program] for program in programs], [dict(os.environ)] * len(programs), **options
    )


@pytest.fixture
def launcher():
    """Start `supervise` as a process to send signals to, and wait until its workers say that they are ready."""
    processes = []

    def start(*programs, **options):
        code = (
            "import os, sys; from apps import RunFailed, launch\n"
            f"commands = [[sys.executable, '-c', program] for program in {programs!r}]\n"
            f"try: sys.exit(launch.supervise(commands, [dict(os.environ)] * len(commands), **{options!r}))\n"
            "except RunFailed as error: sys.exit(f'error: {error}')"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        said = {process.stdout.readline() for _ in programs}
        assert said == {f"[worker {index}] ready\n" for index in range(len(programs))}
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_every_line_says_whose_it_is(capfd):
    program = "import sys; print('a\\nb'); print('é, no end of line', end=''); print('wrong', file=sys.stderr)"
    assert supervise(program, program) == 0
    out, err = capfd.readouterr()
    for index in range(2):
        lines = [line for line in out.splitlines() if line.startswith(f"[worker {index}] ")]
        assert lines == [f"[worker {index}] {text}" for text in ("a", "b", "é, no end of line")]
    assert sorted(err.splitlines()) == ["[worker 0] wrong", "[worker 1] wrong"]


def test_every_worker_has_its_place_in_one_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("OTHER", "kept")
    environments = launch.environments(3)
    configs = [json.loads(environment["TF_CONFIG"]) for environment in environments]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": index} for index in range(3)]
    assert configs[0]["cluster"] == configs[1]["cluster"] == configs[2]["cluster"]
    hosts, ports = zip(*(worker.split(":") for worker in configs[0]["cluster"]["worker"]), strict=True)
    assert set(hosts) == {"localhost"} and len(set(ports)) == 3 and all(int(port) > 0 for port in ports)
    for environment in environments:
        assert environment["PYTHONPATH"] == f"{ROOT}{os.pathsep}/elsewhere"
        assert environment["OTHER"] == "kept" and environment["PYTHONUNBUFFERED"] == "1"
    assert "TF_CONFIG" not in os.environ


def test_the_command_goes_to_the_workers_untouched(invoke, monkeypatch):
    seen = []
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(launch, "supervise", lambda commands, environments: seen.extend(commands) or 0)
    result = invoke("launch", "--workers", 3, "--", "train", "unet", "--size", "tiny", "--workers", 5, "--help")
    assert result.exit_code == 0, result.stderr
    assert len(seen) == 3
    for command in seen:
        assert command[0] == sys.executable
        assert command[-8:] == ["apps", "train", "unet", "--size", "tiny", "--workers", "5", "--help"]


def test_the_workers_are_this_tfzoo_wherever_it_is_started(tmp_path, monkeypatch, capfd):
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "__main__.py").write_text("print('a stranger')")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert launch.run(["train", "--help"]) == 0
    out = capfd.readouterr().out
    assert "[worker 0]  Usage: tfzoo train" in out and "[worker 1]  Usage: tfzoo train" in out


@pytest.mark.parametrize("code", [1, 2])
def test_one_that_fails_stops_the_others(code, capfd):
    began = time.monotonic()
    assert supervise(ENDLESS, f"exit({code})", grace=0.2) == code
    assert time.monotonic() - began < 5
    assert f"error: worker 1 ended with exit code {code}; what it said is above" in capfd.readouterr().err


@pytest.mark.parametrize(
    "program, how",
    [
        ("exit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("import os; os.abort()", "was ended by SIGABRT"),
    ],
)
def test_one_that_does_not_come_to_its_end_stops_the_others(program, how):
    began = time.monotonic()
    with pytest.raises(
        RunFailed, match=f"^worker 1 {how}; its run goes on where the last checkpoint is: give the same"
    ):
        supervise(ENDLESS, program, grace=0.2)
    assert time.monotonic() - began < 5


def test_the_others_may_say_the_same_before_they_are_stopped(capfd):
    late = "import sys, time; time.sleep(0.5); print('the same error', file=sys.stderr); exit(3)"
    assert supervise("exit(2)", late, grace=4) == 2  # the first decides
    assert "[worker 1] the same error" in capfd.readouterr().err


def test_one_that_is_preempted_gives_the_others_time_to_save(capfd):
    assert supervise("exit(143)", "import time; time.sleep(1); print('saved'); exit(143)", grace=0.1) == 143
    assert "[worker 1] saved" in capfd.readouterr().out


@pytest.mark.parametrize("code", [0, 2])
def test_nothing_that_a_worker_started_stays(code, capfd):
    began = time.monotonic()
    assert supervise(FAMILY.format(code=code)) == code
    assert time.monotonic() - began < 4  # the child holds the pipe open
    child = int(capfd.readouterr().out.split()[-1])
    assert not alive(child)


def alive(pid: int) -> bool:
    stat = pathlib.Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_output_that_cannot_be_written_ends_the_workers(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    began = time.monotonic()
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="No space left"):
        supervise("import time\nwhile True: print('more', flush=True); time.sleep(0.01)")
    assert time.monotonic() - began < 5


def test_sigterm_comes_to_every_worker(launcher):
    process = launcher(TERMINATED, TERMINATED)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 143


def test_sigterm_ends_workers_that_do_not_watch_for_it(launcher):
    process = launcher(ENDLESS, ENDLESS)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 143


def test_a_terminal_that_closes_ends_the_workers(launcher):
    process = launcher(TERMINATED)
    process.send_signal(signal.SIGHUP)
    assert process.wait(5) == 143


def test_one_that_does_not_heed_sigterm_is_killed(launcher):
    process = launcher(TERMINATED, STUBBORN, patience=0.5)
    process.send_signal(signal.SIGTERM)
    assert "error: worker 1 did not end within 0.5 s of SIGTERM" in process.communicate(timeout=5)[1]


def test_the_first_ctrl_c_is_passed_on(launcher):
    process = launcher(INTERRUPTED, INTERRUPTED)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130


def test_the_second_ctrl_c_kills(launcher):
    process = launcher(DEAF, DEAF)
    process.send_signal(signal.SIGINT)
    assert {process.stdout.readline() for _ in range(2)} == {"[worker 0] heard\n", "[worker 1] heard\n"}
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130


def test_the_signals_are_as_they_were_before():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    supervise("exit(0)")
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("arguments, received", [((), "no command"), (("evaluate", "runs/unet"), "evaluate")])
def test_only_training_is_launched(invoke, arguments, received):
    result = invoke("launch", "--", *arguments)
    assert result.exit_code == 2
    assert f"Received: {received}. Accepted: train. Try: tfzoo launch --workers 2 -- train NAME" in result.stderr


def test_a_worker_launches_no_workers(invoke, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    result = invoke("launch", "--", "train", "unet")
    assert result.exit_code == 2
    assert "this process already is a worker. Received: TF_CONFIG={}. Accepted: none." in result.stderr
    assert "Unset it, or run the command itself: tfzoo train unet" in result.stderr


def test_there_is_at_least_one_worker(invoke):
    result = invoke("launch", "--workers", 0, "--", "train", "unet")
    assert result.exit_code == 2
    assert "--workers" in result.stderr


def test_importing_it_imports_no_framework():
    code = "import sys, apps.launch; exit(bool({'tensorflow', 'keras', 'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
