"""The measurement in a guest with systemd, as an ordinary user: `scripts/test-vm speed` boots it."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from processes import Cannot
from measure import Goal, Row

HERE = Path(__file__).resolve().parent.parent
SCOPE = "systemd-run --user --scope"
# In the order of side-by-side.
WHO = [SCOPE, "onejob run, static, Cgroup (in a scope)", "onejob run, static, Subreaper", "timeout 10", "nothing around it"]
PROMISES = ("containment", "kill", "owner_death", "crosses_setuid", "freeze", "cpu_accounting", "limits")


def row(programs, rounds):
    """A command around `true`, as an ordinary user whose service manager runs."""
    done = Row("command-systemd", "a command around `true`, as an ordinary user under systemd, on an emulated machine", SCOPE,
              [Goal(WHO[2], SCOPE, 0.05, "≥ 20× faster"), Goal(WHO[1], SCOPE, 1.0, "never slower")])
    carried = {"onejob": programs["onejob-static"][0], "rounds": programs["rounds"], "side-by-side": programs["side-by-side"]}
    try:
        said = in_guest(carried, rounds)
    except Cannot as why:
        done.notes = dict.fromkeys(WHO, str(why))
        return done
    done.where = "On an emulated machine (`scripts/test-vm speed`): " + said.pop("kernel")[0]
    for line in said.pop("place"):
        mechanism, place = line.split()
        # The cgroup that CMD prints: that of the job or, under Subreaper, that of the owner.
        if ("/onejob-" in place and ".scope/" in place) != (mechanism == "cgroup"):
            raise SystemExit(f"benches: {mechanism} put CMD into {place}")
    doctor = json.loads(said.pop("doctor")[0])
    for mechanism in doctor["mechanisms"]:
        who = {"cgroup": WHO[1], "subreaper": WHO[2]}[mechanism["mechanism"]]
        done.notes[who] = promises(mechanism["guarantees"])
    for number, values in said.items():
        for value in values:
            which, took = map(int, value.split())
            done.samples.setdefault(WHO[which], {})[int(number)] = took
    return done


def promises(guarantees):
    """A short description."""
    def text(value):
        return " ".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)

    return ", ".join(f"{name.replace('_', ' ')}: {text(guarantees[name]) or 'none'}" for name in PROMISES if name in guarantees)


def in_guest(programs, rounds):
    """The lines that begin with `measured:`, by their first word."""
    with tempfile.TemporaryDirectory() as there:
        for name, program in programs.items():
            shutil.copy(program, Path(there) / name)
        environment = {**os.environ, "ONEJOB_VM_PROGRAMS": there, "ONEJOB_VM_RUNS": f"user side-by-side {rounds}"}
        run = subprocess.run([HERE.parent / "scripts/test-vm", "speed"], env=environment, text=True,
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
    if run.returncode != 0:
        print(run.stdout)
        raise Cannot("the guest did not pass")
    said = {}
    for line in run.stdout.splitlines():
        words = line.split(" ", 2)
        if words[0] == "measured:":
            said.setdefault(words[1], []).append(words[2])
    return said
