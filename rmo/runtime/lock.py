"""One stage instance, one run at a time: a file HOLDER in its directory says who works on it."""

import json
import math
import os
import socket
import threading
import time
from pathlib import Path

import psutil

from rmo.runtime import hosts
from rmo.runtime.files import Row, RunError, create, modified, naming, remote

FILE = "HOLDER"
BEAT, SILENCE = 20.0, 120.0  # seconds between signs of life; without one for so long, a holder counts as dead


class Held(RunError):
    """Another run works on the stage instance."""


def born(pid: int) -> float:
    """When a process of this machine started (seconds since 1970), so that its number is not taken for that of a later
    one; 0 if it has ended, infinite if that cannot be seen."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return 0.0
    except psutil.AccessDenied:
        return math.inf


class Lock:
    """Held inside `with`, by the process that writes; the others of a run take no part."""

    def __init__(self, directory: Path):
        self.path = directory / FILE
        self.me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": born(os.getpid()),
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "start": os.environ.get("SLURM_RESTART_COUNT", "0"),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        self.done = threading.Event()

    def __enter__(self) -> "Lock":
        """Raises Held."""
        if hosts.writer():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not create(self.path, json.dumps(self.me)):
                holder, silent = self.holder()
                if holder and not self.gone(holder, silent):
                    job = f", job {holder['job']}" if holder["job"] else ""
                    who = f"{holder['host']}, process {holder['pid']}{job}"
                    raise Held(
                        f"{self.path.parent} is being made by {who} since {holder['since']} (last sign of life "
                        f"{silent:.0f} s ago): wait for it, or remove {self.path} if it is gone"
                    )
                self.bury(holder)
            threading.Thread(target=self.beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        if hosts.writer() and self.mine():
            self.path.unlink(missing_ok=True)

    def bury(self, dead: Row) -> None:
        """Take a dead holder's file away; not that of another who did so first and holds it now."""
        if remote(self.path):
            if self.holder()[0] == dead:
                self.path.unlink(missing_ok=True)
            return
        aside = self.path.with_name(f".{FILE}.{self.me['host']}.{self.me['pid']}.aside")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        try:
            if self.read(aside) != dead:
                os.link(aside, self.path)
        except FileExistsError:
            pass
        aside.unlink()

    def holder(self) -> tuple[Row, float]:
        """(who holds it, seconds since their last sign of life); nobody if it has just been left.

        Raises:
          OSError: that cannot be seen, so they may be alive.
        """
        try:
            with naming(self.path):
                return self.read(self.path), time.time() - modified(self.path)
        except FileNotFoundError:
            return {}, 0.0

    def read(self, path: Path) -> Row:
        """Who a file says holds it; nobody where it is damaged."""
        try:
            found = json.loads(path.read_bytes())
        except ValueError:
            return {}
        whole = isinstance(found, dict) and all(type(found.get(name)) is type(mine) for name, mine in self.me.items())
        return found if whole else {}

    def gone(self, holder: Row, silent: float) -> bool:
        """Whether a holder cannot be alive: its process ended, its Slurm job was started again, or it fell silent."""
        if holder["host"] == self.me["host"]:
            now = born(holder["pid"])
            another = abs(now - float(holder["born"])) > 2
            # This process's own number was an earlier one's: of a container before it was started again. Else the clock
            # may have been set, which moves `now`: silence has to say so too.
            return not now or (another and (holder["pid"] == self.me["pid"] or silent > 3 * BEAT))
        again = bool(holder["job"]) and holder["job"] == self.me["job"] and holder["start"] != self.me["start"]
        return again or silent > SILENCE

    def mine(self) -> bool:
        return self.holder()[0] == self.me

    def beat(self) -> None:
        while not self.done.wait(BEAT):
            try:
                holder, _ = self.holder()
                if holder and holder != self.me:  # this process was asleep, and taken for dead
                    print(f"\nrmo: {self.path.parent} was taken over by another run: this one stops", flush=True)
                    os._exit(hosts.HELD)
                if remote(self.path):
                    self.path.write_text(json.dumps(self.me))
                else:
                    os.utime(self.path)
            except Exception as error:  # a network that fails for a moment; the next beat tries again
                print(f"\nrmo: cannot renew {self.path}: {error}", flush=True)
