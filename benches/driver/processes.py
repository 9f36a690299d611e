"""The cgroups and processes of the measurements. All cgroups are below one, which is removed at the end."""

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

TIMEOUT = 120  # seconds; only a hang takes longer, since the machine may stall


class Cannot(Exception):
    """A contender cannot do an operation; the text is for its table cell."""


def own_cgroup():
    """The cgroup (v2) of this process."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            inside = next(l[3:] for l in Path("/proc/self/cgroup").read_text().splitlines() if l.startswith("0::"))
            return Path(fields[4]) / inside.lstrip("/")
    raise SystemExit("benches/run: no cgroup v2 is mounted here")


class Enclosure:
    """The cgroup above all others, and a scratch directory."""

    def __init__(self):
        self.path = own_cgroup() / f"bench-{os.getpid()}"
        try:
            self.path.mkdir()
        except OSError as error:
            raise SystemExit(f"benches/run: {error}; run it as root, or in a cgroup of your own") from None
        self.scratch = Path(tempfile.mkdtemp(prefix="onejob-bench-", dir="/run" if os.access("/run", os.W_OK) else None))
        # Not in the runtime directory of other users of this machine.
        os.environ["ONEJOB_RUNTIME_DIR"] = str(self.scratch / "runtime")
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            kill_below(self.path)
        finally:
            shutil.rmtree(self.scratch)

    def leaf(self):
        self.count += 1
        leaf = self.path / f"leaf-{self.count}"
        leaf.mkdir()
        return leaf

    def fifo(self):
        self.count += 1
        return Fifo(self.scratch / f"fifo-{self.count}")


def kill_below(cgroup):
    """Ends all processes in a cgroup and below, and removes it."""
    (cgroup / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + TIMEOUT
    while "populated 1" in (cgroup / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise SystemExit(f"benches/run: {cgroup} does not end")
        time.sleep(0.01)
    for directory, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(directory)


def pids_below(cgroup):
    """The pids in a cgroup and below, by the kernel."""
    found = []
    for directory, _, _ in os.walk(cgroup):
        try:
            found += [int(pid) for pid in (Path(directory) / "cgroup.procs").read_text().split()]
        except OSError:
            pass  # the cgroup of a job, removed meanwhile
    return found


def comm(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def members_below(cgroup):
    return [pid for pid in pids_below(cgroup) if comm(pid) == "member"]


class Fifo:
    """The FIFO to which each member of a tree writes when it is ready."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)

    def __str__(self):
        return str(self.path)

    def __enter__(self):
        self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def wait(self, count):
        while count:
            if not select.select([self.fd], [], [], TIMEOUT)[0]:
                raise SystemExit(f"benches/run: {count} members have not come")
            count -= len(os.read(self.fd, min(count, 65536)))


class Worker:
    """A process that performs operations on request and returns their times."""

    def __init__(self, enclosure, argv):
        self.leaf = enclosure.leaf()
        self.process = start(self.leaf, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self):
        return self.process.pid

    def ask(self, *words):
        """The numbers in its answer."""
        print(*words, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        verdict, _, rest = line.strip().partition(" ")
        if verdict == "no":
            raise Cannot(rest)
        if verdict != "ok":
            raise SystemExit(f"benches/run: {words}: {line or 'it has ended'}")
        return [int(number) for number in rest.split()]

    def grow(self, fifo, count, verb, program, mode="-"):
        """Lets it start a tree of `count`, and waits until all are ready. Returns the pid of the root."""
        with fifo:
            answer = self.ask(*verb, program, count, fifo, mode)
            fifo.wait(count)
        return answer[0]

    def end(self):
        """Ends it and all processes that it has left."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()
        kill_below(self.leaf)


def start(leaf, argv, **streams):
    """Starts a process in a cgroup; it is a member from its first instruction on."""
    procs = str(leaf / "cgroup.procs")

    def enter():
        with open(procs, "w") as file:
            file.write("0")

    return subprocess.Popen([str(word) for word in argv], preexec_fn=enter, **streams)


def count_after(cgroup, timeout):
    """The number of live members, after a wait until there are none."""
    deadline = time.monotonic() + timeout
    while (left := len(members_below(cgroup))) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def end_members(cgroup):
    for pid in members_below(cgroup):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + TIMEOUT
    while members_below(cgroup) and time.monotonic() < deadline:
        time.sleep(0.01)
