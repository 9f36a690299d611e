"""The worker for psutil: one request per line, one answer per line."""

import ctypes
import os
import subprocess
import sys
import time

import psutil

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

root = None


def reap_all():
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def answer(verb, *words):
    global root
    if verb == "tree":
        root = subprocess.Popen(words)
        return root.pid
    if verb == "list":  # the descendants of any process: time and count
        begin = time.monotonic_ns()
        found = psutil.Process(int(words[0])).children(recursive=True)
        return time.monotonic_ns() - begin, len(found) + 1
    if verb == "kill":
        begin = time.monotonic_ns()
        top = psutil.Process(root.pid)
        for process in [*top.children(recursive=True), top]:
            process.kill()
        if words == ("and-reap",):
            reap_all()
        root.returncode = -9
        return time.monotonic_ns() - begin
    raise ValueError(verb)


for line in sys.stdin:
    try:
        said = answer(*line.split())
        numbers = said if isinstance(said, tuple) else (said,)
        print("ok", *numbers, flush=True)
    except Exception as error:
        print("err", type(error).__name__, error, flush=True)
