"""Measures everything, and writes the tables. Started by benches/run, which builds what it needs."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import guest
import report
from processes import Enclosure
from rows import Bench

HERE = Path(__file__).resolve().parent.parent
BUILT = HERE / "target"


def programs():
    release = BUILT / "release"
    return {
        "member": BUILT / "member",
        "worker": [BUILT / "worker"],
        "floor": [BUILT / "floor"],
        "ours": [release / "ours"],
        "peers": [release / "peers"],
        "psutil": [sys.executable, HERE / "workers/psutil_worker.py"],
        "tree-kill": ["node", HERE / "workers/treekill_worker.js"],
        "onejob": [BUILT / "onejob"],
        "onejob-static": [BUILT / "onejob-static"],
        "rounds": BUILT / "rounds",
        "side-by-side": HERE / "guest/side-by-side",
    }


def said(*argv):
    run = subprocess.run(argv, capture_output=True, text=True, check=True)
    return (run.stdout or run.stderr).strip().splitlines()[0]


def versions():
    tree = json.loads(said("cargo", "metadata", "--format-version", "1", "--manifest-path", str(HERE / "Cargo.toml")))
    wanted = ("onejob", "processkit", "process-wrap", "command-group", "kill_tree", "tokio")
    found = {package["name"]: package["version"] for package in tree["packages"] if package["name"] in wanted}
    debian = ("tini", "dumb-init", "coreutils", "python3-psutil", "libc6")
    for package in debian:
        found[package] = said("dpkg-query", "-W", "-f", "${Version}\n", package)
    lock = json.loads((HERE / "workers/package-lock.json").read_text())
    found["tree-kill"] = lock["packages"]["node_modules/tree-kill"]["version"]
    found["node"] = said("node", "--version")
    found["rustc"] = said("rustc", "--version").split()[1]
    found["commit"] = commit()
    found["static build"] = (BUILT / "onejob-static.how").read_text().strip()
    return found


def commit():
    return said("git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12")


def host():
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "cpu": cpu,
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "load": round(os.getloadavg()[0], 1),
    }


def main(mode, only):
    results = {"mode": mode, "when": time.strftime("%Y-%m-%d"), "host": host(), "versions": versions(), "rows": []}
    began = time.monotonic()
    with Enclosure() as enclosure:
        bench = Bench(enclosure, programs(), quick=mode == "quick")
        rows = getattr(bench, only[0])(*map(int, only[1:])) if only else bench.rows()
        for row in rows if not hasattr(rows, "key") else [rows]:
            results["rows"].append(report.as_data(row))
    results["seconds"] = round(time.monotonic() - began)
    if only:
        print(report.full_table(results))
        return
    report.write(results, HERE / "results")
    if mode == "full":
        report.update_readme(HERE.parent / "README.md", results)
    print("\n".join(report.goal_lines(results)))
    print(f"benches/results/{mode}.md, after {results['seconds']} s")


def rewrite(fresh=None):
    """Writes the tables again from the results, of which one row may be new."""
    results = json.loads((HERE / "results/full.json").read_text())
    if fresh:
        rows = results["rows"]
        at = next((at for at, row in enumerate(rows) if row["key"] == fresh["key"]), len(rows))
        rows[at:at + 1] = [fresh]
    report.write(results, HERE / "results")
    report.update_readme(HERE.parent / "README.md", results)


def systemd():
    """Measures only the row of the guest: other processes on this machine affect it little."""
    row = report.as_data(guest.row(programs(), rounds=60))
    row["where"] += f"; on {time.strftime('%Y-%m-%d')}, commit {commit()}"
    rewrite(row)
    print(report.full_table({**json.loads((HERE / "results/full.json").read_text()), "rows": [row]}))


match sys.argv[1:]:
    case [("full" | "quick") as mode, *only]:
        main(mode, only)
    case ["systemd"]:
        systemd()
    case ["report"]:
        rewrite()
    case _:
        raise SystemExit("usage: benches/run [full|quick [ROW [SIZE]]] | systemd | report")
