"""The operations, the contenders, and the goals."""

import os
import signal
import subprocess
import time
from pathlib import Path

import guest
from processes import Cannot, Worker, comm, count_after, end_members, pids_below, start
from measure import Goal, Row, measure

RAW = "posix_spawn + wait, C"
KILL = "cgroup.kill, C"
CGROUP, SUBREAPER = "onejob, Cgroup", "onejob, Subreaper"
OURS = {CGROUP: "cgroup", SUBREAPER: "subreaper"}
# The minimum that the guarantee needs: the best result that is possible.
FLOOR = {f"the kernel's part, C, {mechanism.capitalize()}": mechanism for mechanism in OURS.values()}
FLOOR_CGROUP, FLOOR_SUBREAPER = FLOOR


class Bench:
    """The workers, which run the whole time, and the rows."""

    def __init__(self, enclosure, programs, quick):
        self.enclosure, self.programs, self.quick = enclosure, programs, quick
        self.member = programs["member"]
        self.raw = self.worker("worker")
        self.std = self.worker("peers")
        self.std.ask("job")
        self.floor = self.worker("floor")
        self.jobs = {}
        for who, mechanism in OURS.items():
            self.jobs[who] = self.worker("ours")
            self.jobs[who].ask("job", mechanism)

    def worker(self, name):
        return Worker(self.enclosure, self.programs[name])

    def rounds(self, full, quick):
        return quick if self.quick else full

    def rows(self):
        """Yields each row when it is measured."""
        yield self.spawn()
        yield self.spawn_from_large()
        yield self.spawn_in_new_jobs()
        yield self.spawn_in_threads()
        yield self.first_job()
        for size in (10, 1000) if self.quick else (10, 1000, 10000):
            yield self.kill(size)
        yield from self.listings()
        yield self.command()
        yield from self.memory()
        yield self.owner_death()
        yield from self.many_jobs()
        yield self.stop()
        yield self.left_alive()
        if not self.quick:
            yield self.systemd()

    # Spawning

    def spawn(self):
        count = 20
        row = Row("spawn", "spawn and wait for a tiny program, the job standing", RAW, [
            Goal(CGROUP, RAW, 1.0, "≤ 1.0"),
            Goal(SUBREAPER, RAW, 1.8, "≤ 1.8"),
        ])
        ask = {RAW: lambda: self.raw.ask("spawn", count, self.member)[0]}
        for who, worker in self.jobs.items():
            ask[who] = lambda worker=worker: worker.ask("spawn", count, self.member)[0]
        floor = self.floor
        ask[FLOOR_SUBREAPER] = lambda: floor.ask("spawn", "subreaper", floor.leaf, count, self.member)[0]
        for peer in ("std", "processkit", "process-wrap", "command-group"):
            few = 3 if peer == "processkit" else count
            ask[crate(peer)] = lambda peer=peer, few=few: self.std.ask("spawn", peer, few, self.member)[0]
        return measure(row, ask, self.rounds(60, 10), warm_up=3)

    def spawn_from_large(self):
        megabytes = self.ballast()
        large = f"{megabytes / 1024:.0f} GB"
        ours, sub, kit, std = (f"{who}, {large}" for who in (CGROUP, SUBREAPER, "processkit", "std Command"))
        row = Row("spawn-large", f"the same from a program with {large} of memory", RAW, [
            Goal(ours, RAW, 1.5, "≤ 1.5"),
            Goal(ours, kit, 0.01, "≥ 100× faster"),
        ])
        job, remote, peers = self.worker("ours"), self.worker("ours"), self.worker("peers")
        job.ask("job", "cgroup")
        remote.ask("job", "subreaper")
        peers.ask("job")
        for worker in (job, peers):
            worker.ask("ballast", megabytes)
        # The guard starts the child, so the memory of the owner does not matter: a quarter is enough to show that.
        remote.ask("ballast", megabytes // 4)
        sub = f"{SUBREAPER}, {megabytes / 4096:.2g} GB"
        row = measure(row, {
            RAW: lambda: self.raw.ask("spawn", 10, self.member)[0],
            ours: lambda: job.ask("spawn", 10, self.member)[0],
            sub: lambda: remote.ask("spawn", 10, self.member)[0],
            std: lambda: peers.ask("spawn", "std", 10, self.member)[0],
            kit: lambda: peers.ask("spawn", "processkit", 1, self.member)[0],
        }, self.rounds(30, 5))
        for worker in (job, remote, peers):
            worker.end()
        return row

    def ballast(self):
        """The memory that the owner can use on this machine, in MB."""
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        spare = int(fields["MemAvailable"].split()[0]) // 1024
        return next(size for size in (1024 if self.quick else 4096, 1024, 256) if size * 3 < spare)

    def spawn_in_new_jobs(self):
        row = Row("spawn-new-job", "the same, the job made and removed each time", RAW, [Goal(CGROUP, RAW, 1.5, "≤ 1.5")])
        ask = {RAW: lambda: self.raw.ask("spawn", 20, self.member)[0]}
        for who, count in ((CGROUP, 20), (SUBREAPER, 5)):
            ask[who] = lambda who=who, count=count: self.jobs[who].ask("spawn-in-new-job", OURS[who], count, self.member)[0]
        floor = self.floor
        ask[FLOOR_CGROUP] = lambda: floor.ask("spawn-in-new-job", floor.leaf, 20, self.member)[0]
        ask["processkit"] = lambda: self.std.ask("spawn", "processkit-new", 2, self.member)[0]
        return measure(row, ask, self.rounds(60, 10), warm_up=3)

    def spawn_in_threads(self):
        std = "std Command"
        row = Row("spawn-threads", "the same from 8 threads at once into one job, each", std, [Goal(CGROUP, std, 1.0, "≥ 1.0× as many")])
        ask = {std: lambda: self.std.ask("threads", 8, 25, self.member)[0]}
        for who, worker in self.jobs.items():
            ask[who] = lambda worker=worker: worker.ask("threads", 8, 25, self.member)[0]
        return measure(row, ask, self.rounds(30, 8))

    def first_job(self):
        row = Row("first-job", "an owner's first job with its guards, and one spawn and wait", RAW, [
            Goal(CGROUP, RAW, 3, "≤ 3"),
            Goal(SUBREAPER, RAW, 4, "≤ 4"),
        ])

        def first(mechanism, name="ours"):
            owner = self.worker(name)
            try:
                place = [owner.leaf] if name == "floor" else []
                return owner.ask("first", mechanism, *place, self.member)[0]
            finally:
                owner.end()

        ask = {RAW: lambda: self.raw.ask("spawn", 5, self.member)[0]}
        ask |= {who: lambda mechanism=mechanism: first(mechanism) for who, mechanism in OURS.items()}
        ask |= {who: lambda mechanism=mechanism: first(mechanism, "floor") for who, mechanism in FLOOR.items()}
        return measure(row, ask, self.rounds(40, 8))

    # Killing

    def kill(self, size):
        goals = [Goal(CGROUP, KILL, 1.1, "≤ 1.1")]
        if size == 1000:
            goals += [
                Goal(SUBREAPER, "psutil", 1 / 1.5, "≥ 1.5× faster"),
                Goal(SUBREAPER, "kill_tree", 1.0, "≥ 1.0× as fast"),
                Goal(SUBREAPER, "tree-kill", 1 / 200, "≥ 200× faster"),
            ]
        if size == 10000:
            goals += [Goal(SUBREAPER, peer, 1.0, "never slower") for peer in ("psutil", "kill_tree")]
        row = Row(f"kill-{size}", f"kill a tree of {size:,} until all are dead and reaped", KILL, goals)
        fifo = self.enclosure.fifo()
        snake, node = self.worker("psutil"), self.worker("tree-kill")
        holder = self.worker("worker")
        tidy = self.worker("ours")

        def raw():
            self.raw.grow(fifo, size, ["tree", self.raw.leaf], self.member)
            return self.raw.ask("kill")[0]

        def in_cgroup():
            tidy.grow(fifo, size, ["tree"], self.member)
            return tidy.ask("kill" if size < 100 else "kill-and-reap-beside")[0]

        def below_guard():
            self.jobs[SUBREAPER].grow(fifo, size, ["tree"], self.member)
            return self.jobs[SUBREAPER].ask("kill")[0]

        def peer(name):
            self.std.grow(fifo, size, ["tree", name], self.member)
            return self.std.ask("kill", "and-reap")[0]

        def psutil():
            snake.grow(fifo, size, ["tree"], self.member)
            return snake.ask("kill", "and-reap")[0]

        def tree_kill():
            root = holder.grow(fifo, size, ["plain"], self.member)
            begin, _ = node.ask("kill", root)
            return holder.ask("reap")[0] - begin

        # After its guards have started, so that they are not its children.
        tidy.ask("job", "cgroup")
        tidy.ask("reap-orphans")
        ask = {KILL: raw, CGROUP: in_cgroup, SUBREAPER: below_guard}
        for name in ("processkit", "process-wrap", "command-group", "kill_tree"):
            ask[name] = lambda name=name: peer(name)
        ask["psutil"] = psutil
        rounds, only = {10: (40, 8), 1000: (20, 3), 10000: (5, 0)}[size], {}
        if size == 10000 or (size == 1000 and self.quick):
            row.notes["tree-kill"] = "not asked here: it starts a ps for each member"
        if size == 10000:
            only = dict.fromkeys(("processkit", "process-wrap", "command-group"), 2)
        if "tree-kill" not in row.notes:
            ask["tree-kill"] = tree_kill
            only["tree-kill"] = {10: self.rounds(10, 2), 1000: 3}[size]
        row = measure(row, ask, self.rounds(*rounds), warm_up=1 if size < 10000 else 0, only=only)
        for worker in (snake, node, holder, tidy):
            worker.end()
        return row

    # Listing

    def listings(self):
        """Beside 10,000 other processes and without them: the others must not matter."""
        others, snake = self.worker("worker"), self.worker("psutil")
        crowd = self.rounds(10000, 2000)
        fifo = self.enclosure.fifo()
        kept = []
        for size in (10, 1000) if self.quick else (10, 1000, 10000):
            for who in OURS:
                kept.append(self.listing(who, size, others, crowd, snake, fifo))
        yield from (row for rows in kept for row in rows)
        others.end()
        snake.end()

    def listing(self, who, size, others, crowd, snake, fifo):
        """One mechanism at a time, because the number of pids is limited."""
        worker = self.jobs[who]
        pids, identities, peer = f"{who}: pids", f"{who}: identities", "psutil"
        goals = []
        if size == 10:
            if who == CGROUP:
                goals.append(Goal(pids, peer, 1 / 1000, "≥ 1,000× faster"))
            goals.append(Goal(identities, peer, 1 / 50, "≥ 50× faster"))
        row = Row(f"list-{OURS[who]}-{size}", f"list {size:,} members beside {crowd:,} others", peer, goals)
        alone = f"{pids}, no other processes"
        growth = Row(f"crowd-{OURS[who]}-{size}", f"list {size:,} members beside {crowd:,} others and beside none", alone, [
            Goal(pids, alone, 1.25, "does not grow (≤ 1.25)")])
        root = worker.grow(fifo, size, ["tree"], self.member)
        often = max(1, 1000 // size)
        ask_pids = lambda: worker.ask("pids", often)[0]

        def with_others(n):
            others.grow(fifo, crowd, ["tree", others.leaf], self.member)
            worker.ask("pids", often)
            growth.samples.setdefault(pids, {})[n] = ask_pids()

        def without():
            others.ask("kill")

        turns = self.rounds(5, 2) if size == 10 else 1
        for n in range(turns):
            worker.ask("pids", often)
            growth.samples.setdefault(alone, {})[n] = ask_pids()
            with_others(n)
            if n + 1 < turns:
                without()
        measure(row, {
            peer: lambda: snake.ask("list", root)[0],
            pids: ask_pids,
            identities: lambda: worker.ask("identities", max(1, often // 10))[0],
        }, self.rounds(30 if size < 10000 else 10, 4))
        without()
        worker.ask("kill")
        return [row, growth] if size == 10 else [row]

    # The command

    def commands(self):
        """The command in both builds and with both mechanisms."""
        for build, program in (("static", "onejob-static"), ("default build", "onejob")):
            for mechanism in ("cgroup", "subreaper"):
                name = f"onejob run, {build}, {mechanism.capitalize()}"
                yield name, [*self.programs[program], "run", "--mechanism", mechanism, "--"]

    def command(self):
        base = "timeout 10"
        goals = []
        for name, _ in self.commands():
            most = 0.8 if "static" in name else 1.2
            goals.append(Goal(name, base, most, f"≤ {most}"))
        row = Row("command", "a command around `true`", base, goals)
        true = "/bin/true"
        around = {base: ["timeout", "10"], "tini -s": ["tini", "-s", "--"], "dumb-init": ["dumb-init"],
                  "setsid": ["setsid", "--wait"], "env": ["env"], "nothing around it": []}
        around |= dict(self.commands())
        around |= {who: [*self.programs["floor"], "run", mechanism, self.raw.leaf] for who, mechanism in FLOOR.items()}
        ask = {}
        for name, argv in around.items():
            words = [*resolve(argv), true]
            ask[name] = lambda words=words: self.raw.ask("spawn", 3, *words)[0]
        return measure(row, ask, self.rounds(60, 10), warm_up=3)

    def memory(self):
        """The memory of the processes that wait for a command, in KB."""
        row = Row("memory", "memory (RSS) of a waiting command with its guards", "tini -s", [], unit="KB")
        guard = Row("guard", "private memory of one guard", "a limit of 32 KB", [], unit="KB")
        around = {"tini -s": ["tini", "-s", "--"], "dumb-init": ["dumb-init"], "timeout": ["timeout", "100"]}
        around |= dict(self.commands())
        fifo = self.enclosure.fifo()
        for name in (name for name, _ in self.commands()):
            if "static" in name:
                row.goals.append(Goal(name, "tini -s", 0.4, "≤ 0.4"))
            guard.goals.append(Goal(f"a guard of {name}", guard.baseline, 1.0, "≤ 32 KB"))

        def waiting(name):
            leaf = self.enclosure.leaf()
            with fifo:
                process = start(leaf, [*around[name], self.member, "1", fifo], stdin=subprocess.DEVNULL)
                fifo.wait(1)
            time.sleep(0.3)  # until the work after the start has ended; no time is measured here
            waits = [(comm(pid), memory_of(pid)) for pid in pids_below(leaf)]
            number = len(row.samples.get(name, {}))
            private = [of["Private_Clean"] + of["Private_Dirty"] for what, of in waits if what == "onejob-guard"]
            if private:
                guard.samples.setdefault(f"a guard of {name}", {})[number] = max(private)
                guard.samples.setdefault(guard.baseline, {})[number] = 32
            elif name.startswith("onejob"):
                raise SystemExit(f"benches/run: {name} has no guards")
            end_members(leaf)
            process.wait()
            return sum(of["Rss"] for what, of in waits if what != "member")

        measure(row, {name: lambda name=name: waiting(name) for name in around}, 3, warm_up=0)
        yield row
        yield guard

    # The end of an owner

    def owner_death(self):
        size = 1000
        row = Row("owner-death", f"SIGKILL of the owner until the last of {size:,} members is dead", KILL, [Goal(CGROUP, KILL, 1.5, "≤ 1.5")])
        fifo = self.enclosure.fifo()
        watcher = self.worker("worker")

        def raw():
            watcher.grow(fifo, size, ["tree", watcher.leaf], self.member, "hold")
            took = watcher.ask("death", "cgroup", fifo)[0]
            watcher.ask("kill")
            return took

        def owned(worker, verb, before=()):
            owner = self.worker(worker)
            if before:
                owner.ask(*before)
            owner.grow(fifo, size, verb, self.member, "hold")
            return watched(owner.pid, owner.leaf, owner.end)

        def command(argv):
            leaf = self.enclosure.leaf()
            with fifo:
                process = start(leaf, [*argv, self.member, size, fifo, "hold"], stdin=subprocess.DEVNULL)
                fifo.wait(size)
            return watched(process.pid, leaf, lambda: (end_members(leaf), process.wait()))

        def watched(pid, leaf, clean):
            try:
                return watcher.ask("death", pid, fifo)[0]
            except Cannot:
                raise Cannot(f"{count_after(leaf, 0):,} of {size:,} live on") from None
            finally:
                clean()

        ask = {KILL: raw}
        for who, mechanism in OURS.items():
            ask[who] = lambda mechanism=mechanism: owned("ours", ["tree"], ["job", mechanism])
        ask["onejob run, static, Cgroup"] = lambda: command(dict(self.commands())["onejob run, static, Cgroup"])
        for name in ("processkit", "process-wrap", "command-group"):
            ask[name] = lambda name=name: owned("peers", ["tree", name])
        ask["psutil"] = lambda: owned("psutil", ["tree"])
        for name, argv in {"tini -s": ["tini", "-s", "--"], "dumb-init": ["dumb-init"], "timeout": ["timeout", "100"]}.items():
            ask[name] = lambda argv=argv: command(argv)
        row = measure(row, ask, self.rounds(12, 3))
        watcher.end()
        return row

    def many_jobs(self):
        count = 1000 if not self.quick else 200
        few = count // 10
        one, many = "1 job", f"{count:,} jobs"
        held = Row("many-jobs", f"threads and guards of an owner that holds {count:,} jobs", one,
                   [Goal(many, one, 1.0, "do not grow")], unit="count")
        made = Row("many-jobs-time", f"make, use and remove a job, {few} held at once and {count:,} held at once", f"{few} held",
                   [Goal(f"{count:,} held", f"{few} held", 1.25, "linear (≤ 1.25)")])
        owner = self.worker("ours")
        owner.ask("job", "cgroup")

        def beings():
            guards = [pid for pid in pids_below(owner.leaf) if comm(pid) == "onejob-guard"]
            return len(guards) + len(os.listdir(f"/proc/{owner.pid}/task"))

        def make(size):
            took = owner.ask("jobs", "cgroup", size, self.member)[0]
            if size == count:
                held.samples.setdefault(many, {})[len(held.values(many))] = beings()
            took += owner.ask("drop-jobs")[0]
            held.samples.setdefault(one, {})[len(held.values(one))] = beings()
            return took / size

        measure(made, {f"{few} held": lambda: make(few), f"{count:,} held": lambda: make(count)}, self.rounds(10, 3))
        rounds = len(held.values(many))
        held.samples[one] = {n: value for n, value in held.samples[one].items() if n < rounds}
        owner.end()
        yield held
        yield made

    def stop(self):
        size = 10
        base = "SIGTERM to each and wait, C"
        row = Row("stop", f"stop a young job of {size} that end at once on SIGTERM", base,
                  [Goal(who, base, 1_000_000, "≤ 1 ms added", added=True) for who in OURS])
        fifo = self.enclosure.fifo()

        def raw():
            self.raw.grow(fifo, size, ["tree", self.raw.leaf], self.member)
            return self.raw.ask("term")[0]

        def ours(who):
            self.jobs[who].ask("job", OURS[who])
            self.jobs[who].grow(fifo, size, ["tree"], self.member)
            return self.jobs[who].ask("stop")[0]

        return measure(row, {base: raw} | {who: lambda who=who: ours(who) for who in OURS}, self.rounds(40, 10))

    def systemd(self):
        return guest.row(self.programs, self.rounds(60, 10))

    # What is left

    def left_alive(self):
        """The number of survivors by the kernel's list, after each contender has killed what it can."""
        row = Row("left-alive", "left alive of 2, one a daemon in a session of its own", CGROUP,
                  [Goal(who, "none", 0, "0", added=True) for who in OURS], unit="count")
        row.samples["none"] = {0: 0}
        fifo = self.enclosure.fifo()

        def asked(name, verb, kill, before=()):
            worker = self.worker(name)
            if before:
                worker.ask(*before)
            root = worker.grow(fifo, 2, verb, self.member, "escape")
            kill(worker, root)
            left = count_after(worker.leaf, 1)
            worker.end()
            return left

        def commanded(argv):
            leaf = self.enclosure.leaf()
            with fifo:
                process = start(leaf, [*argv, self.member, 2, fifo, "escape"], stdin=subprocess.DEVNULL)
                fifo.wait(2)
            process.send_signal(signal.SIGTERM)
            left = count_after(leaf, 1)
            end_members(leaf)
            process.wait()
            return left

        def tree_kill(worker, root):
            node = self.worker("tree-kill")
            node.ask("kill", root)
            node.end()

        ask = {who: lambda mechanism=mechanism: asked("ours", ["tree"], lambda w, _: w.ask("kill"), ["job", mechanism])
               for who, mechanism in OURS.items()}
        for name in ("processkit", "process-wrap", "process-wrap-session", "command-group", "kill_tree"):
            ask[name] = lambda name=name: asked("peers", ["tree", name], lambda w, _: w.ask("kill", "leave"))
        ask["psutil"] = lambda: asked("psutil", ["tree"], lambda w, _: w.ask("kill", "leave"))
        ask["tree-kill"] = lambda: asked("worker", ["plain"], tree_kill)
        around = {"tini -s -g": ["tini", "-s", "-g", "--"], "dumb-init": ["dumb-init"], "timeout": ["timeout", "100"]}
        around |= dict(self.commands())
        for name, argv in around.items():
            ask[f"{name}, SIGTERM"] = lambda argv=argv: commanded(argv)
        return measure(row, ask, 1, warm_up=0)


def crate(name):
    return "std Command" if name == "std" else name


def resolve(argv):
    """Replaces the name of a command by its path."""
    from shutil import which
    return [which(argv[0]), *argv[1:]] if argv else []


def memory_of(pid):
    """The sums of the memory map of a process, in KB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
