"""A real Slurm on loopback for as long as a test run lasts: its own key, configuration, spool and daemons.

Several virtual nodes of this machine, each with a slurmd of its own. Nothing is shared with a Slurm that may be
installed and running here, and at the end exactly the daemons that were started here are ended.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

#: What must be installed (Debian: slurm-wlm, munge).
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
#: Seconds for daemons to answer, and to end.
TO_START_S, TO_END_S = 30.0, 10.0
#: Processors of each virtual node.
CPUS = 2
#: Runs a program that ends with this process, however that ends; nothing where the system has no such thing.
_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--") if shutil.which("setpriv") else ()
#: Daemons live in sbin, which not every PATH has.
SBIN = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))

#: Nothing is enforced by cgroups, which a container has not; states are those of squeue and scontrol, as there is no
#: accounting. Memory is counted where jobs ask for it. Jobs end two seconds after they are told to.
CONFIGURATION = """\
ClusterName=wetmap-test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=300
MaxArraySize=10001
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
{nodes}
PartitionName=debug Nodes={names} Default=YES MaxTime=INFINITE State=UP
PartitionName=other Nodes={names} MaxTime=INFINITE State=UP
"""


@functools.cache
def slurm_missing() -> str | None:
    """Why Slurm cannot be started here, or None."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        return f"there is no {', '.join(missing)}; apt-get install --no-install-recommends slurm-wlm munge"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SBIN)


@dataclass(frozen=True)
class Slurm:
    """A running one."""

    folder: Path
    """Its configuration, state and logs."""
    nodes: tuple[str, ...]
    """Names of the virtual nodes, of ``CPUS`` processors each."""

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need, and what jobs inherit from who submits them."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str | Path, cwd: Path | None = None, expect: int | None = 0) -> str:
        """Run a command of Slurm's, or one that submits jobs, and give what it printed.

        Args:
            command: Program and arguments.
            cwd: Where; Slurm writes ``slurm-N.out`` there unless told otherwise.
            expect: Exit code that it must have; None: any.
        """
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert expect is None or done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def jobs(self, *states: str) -> dict[str, str]:
        """Jobs that wait or run (``1234`` or ``1234_5``) and their states, or only those in these states."""
        said = self.run("squeue", "-h", "-r", "-o", "%i %T", *(["-t", ",".join(states)] if states else []))
        return dict(line.split() for line in said.splitlines())

    def facts(self, job: str) -> dict[str, str]:
        """What ``scontrol`` knows of a job, also for some minutes after its end: JobState, ExitCode, Reason, ..."""
        said = self.run("scontrol", "show", "job", job, "-o").splitlines()[0]
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something holds."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"not within {seconds:.0f} s; jobs: {self.jobs()}"
            time.sleep(0.1)

    def wait_empty(self, seconds: float = 30.0) -> None:
        """Wait until no job waits or runs."""
        self.wait_for(lambda: not self.jobs(), seconds)

    def log(self) -> str:
        """The end of the daemons' logs, for messages of tests."""
        parts = []
        for path in sorted((self.folder / "log").glob("*")):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
            parts += [f"--- {path.name}", *lines]
        return "\n".join(parts)


@contextlib.contextmanager
def started(nodes: int = 4) -> Iterator[Slurm]:
    """A Slurm with so many virtual nodes; jobs and daemons are gone when the block ends."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as ends,
    ):
        slurm = Slurm(Path(name), tuple(f"wet{number}" for number in range(1, nodes + 1)))
        _configure(slurm)
        munge = [f"--{key}={slurm.folder / file}" for key, file in _MUNGE_FILES]
        _start(ends, slurm, "munged", "--foreground", "--force", *munge)
        _until((slurm.folder / "munge.sock").exists, slurm)
        configuration = str(slurm.folder / "slurm.conf")
        _start(ends, slurm, "slurmctld", "-D", "-i", "-f", configuration)
        for node in slurm.nodes:
            _start(ends, slurm, "slurmd", "-D", "-N", node, "-f", configuration)
        _until(lambda: _idle(slurm) == len(slurm.nodes), slurm)
        try:
            yield slurm
        finally:
            slurm.run("scancel", "-u", getpass.getuser(), expect=None)
            with contextlib.suppress(AssertionError):
                slurm.wait_empty(TO_END_S)


_MUNGE_FILES = (
    ("key-file", "munge.key"),
    ("socket", "munge.sock"),
    ("pid-file", "munged.pid"),
    ("log-file", "log/munged.log"),
    ("seed-file", "munge.seed"),
)


def _configure(slurm: Slurm) -> None:
    folder = slurm.folder
    folder.chmod(0o755)
    for part in ("state", "log", *(f"spool-{node}" for node in slurm.nodes)):
        (folder / part).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    host = socket.gethostname().partition(".")[0]
    port, *ports = _free_ports(1 + len(slurm.nodes))
    memory = int(psutil.virtual_memory().total / 2**20 * 0.9 / len(slurm.nodes))
    lines = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={own} CPUs={CPUS} RealMemory={memory}"
        for node, own in zip(slurm.nodes, ports, strict=True)
    ]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host,
            user=getpass.getuser(),
            port=port,
            folder=folder,
            nodes="\n".join(lines),
            names=",".join(slurm.nodes),
        )
    )


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on; all different, as they are taken at the same time."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(ends: contextlib.ExitStack, slurm: Slurm, program: str, *arguments: str) -> None:
    """Start a daemon in the foreground, in a session of its own; it is ended with the stack."""
    with (slurm.folder / "log" / f"{program}.said").open("ab") as said:
        child = subprocess.Popen(
            [*_WITH_PARENT, _program(program) or program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **slurm.environment},
            start_new_session=True,
        )
    ends.callback(_end, child)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(TO_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _until(condition: Callable[[], bool], slurm: Slurm) -> None:
    until = time.monotonic() + TO_START_S
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"Slurm did not start:\n{slurm.log()}")
        time.sleep(0.05)


def _idle(slurm: Slurm) -> int:
    said = slurm.run("sinfo", "-h", "-p", "debug", "-N", "-o", "%t", expect=None)
    return said.split().count("idle")


def processes_with(variable: str, value: str, *, but: Sequence[int] = ()) -> list[psutil.Process]:
    """Processes whose environment has a variable with this value; for tests that look for what outlives a run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in but and process.environ().get(variable) == value:
                found.append(process)
    return found
