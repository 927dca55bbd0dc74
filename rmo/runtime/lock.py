"""One stage instance, one run at a time: a file HOLDER in its directory says who works on it."""

import contextlib
import json
import math
import os
import socket
import threading
import time
from pathlib import Path

import psutil

from rmo.runtime import hosts
from rmo.runtime.files import Row, RunError, create, modified, naming, remote, still_mine

FILE = "HOLDER"
BEAT, SILENCE = 20.0, 120.0  # seconds between signs of life; without one for so long, a holder counts as dead
# Clocks may have been set, or differ between machines: who counts as dead by them alone is watched for so long first.
WATCH = 3 * BEAT


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


def since_boot() -> float:
    """Seconds, those included in which the machine slept; whoever sets its clock does not change them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


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
        self.seen = 0.0  # when this process was last known to hold it, `since_boot`

    def __enter__(self) -> "Lock":
        """Raises Held."""
        if hosts.writer():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not create(self.path, json.dumps(self.me)):
                holder, silent = self.holder()
                if holder and not self.dead(holder, silent):
                    job = f", job {holder['job']}" if holder["job"] else ""
                    who = f"{holder['host']}, process {holder['pid']}{job}"
                    raise Held(
                        f"{self.path.parent} is being made by {who} since {holder['since']} (last sign of life "
                        f"{max(silent, 0):.0f} s ago): wait for it, or remove {self.path} if it is gone"
                    )
                self.bury(holder)
            self.seen = since_boot()
            still_mine.append(self.check)
            threading.Thread(target=self.beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        if self.check in still_mine:
            still_mine.remove(self.check)
        with contextlib.suppress(OSError, RunError):  # what ended the stage is to be told, not this
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
        """Whether a holder cannot be alive, as far as one look says: its process ended, or it fell silent."""
        return self.ended(holder) or self.silent_too_long(holder, silent)

    def ended(self, holder: Row) -> bool:
        """Whether a holder's process is certainly gone, whatever clocks say."""
        if holder["host"] == self.me["host"]:
            # This process's own number was an earlier one's: of a container before it was started again.
            return not born(holder["pid"]) or (holder["pid"] == self.me["pid"] and self.another(holder))
        return bool(holder["job"]) and holder["job"] == self.me["job"] and holder["start"] != self.me["start"]

    def another(self, holder: Row) -> bool:
        """Whether its number is another process's now; or the clock was set, which moves when a process was born."""
        return abs(born(holder["pid"]) - float(holder["born"])) > 2

    def silent_too_long(self, holder: Row, silent: float) -> bool:
        """Whether it counts as dead by clocks."""
        if holder["host"] == self.me["host"]:
            return self.another(holder) and silent > 3 * BEAT
        return silent > SILENCE

    def dead(self, holder: Row, silent: float) -> bool:
        """Whether its stage may be taken. Where only clocks say so, or they disagree (its last sign of life is yet to
        come), it is watched for `WATCH` seconds first: one that lives gives a sign."""
        if self.ended(holder):
            return True
        local = holder["host"] == self.me["host"]
        if not self.silent_too_long(holder, silent) and (silent > -BEAT or (local and not self.another(holder))):
            return False
        who = f"{self.path.parent} is held by {holder['host']}, process {holder['pid']}"
        print(f"rmo: {who}, dead by the clock: waiting {WATCH:.0f} s for a sign of life", flush=True)
        before, until = self.sign(), since_boot() + WATCH
        while since_boot() < until:
            time.sleep(min(BEAT / 10, 1.0))
            if self.sign() != before:
                return False
        return True

    def sign(self) -> tuple[Row, float]:
        """Something that changes with every sign of life."""
        try:
            return self.read(self.path), modified(self.path)
        except OSError:
            return {}, 0.0

    def mine(self) -> bool:
        return self.holder()[0] == self.me

    def check(self) -> None:
        """End this process where it was asleep, taken for dead and replaced; what it does is another run's now."""
        if since_boot() - self.seen < 1.5 * BEAT:  # less than what others wait, less one beat
            return
        holder, _ = self.holder()
        if holder and holder != self.me:
            print(f"\nrmo: {self.path.parent} was taken over by another run: this one stops", flush=True)
            os._exit(hosts.HELD)
        if holder:
            self.seen = since_boot()

    def beat(self) -> None:
        while not self.done.wait(BEAT):
            try:
                self.seen = -math.inf
                self.check()
                if remote(self.path):
                    self.path.write_text(json.dumps(self.me))
                else:
                    os.utime(self.path)
            except Exception as error:  # a network that fails for a moment; the next beat tries again
                with contextlib.suppress(OSError):  # nobody may read this
                    print(f"\nrmo: cannot renew {self.path}: {error}", flush=True)
