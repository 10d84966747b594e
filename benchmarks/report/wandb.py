"""Weights & Biases as an observer: it sees a run, and nothing that happens to it stops or changes the run.

wandb lives in a process of its own (`wandb_process.py`), so it can neither move the random numbers of
training, nor keep the interpreter from ending, nor make a step wait: messages go through a queue, and a
failure of any kind (no network, no key, an exception, a hang, a death) turns the observer off with one
warning.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import logging
import netrc
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from zoo.errors import UsageError, one_line

Mode = Literal["auto", "online", "offline", "disabled"]
OLDER = {"dryrun": "offline", "run": "online"}  # words of $WANDB_MODE that wandb still takes
PENDING = 20_000  # messages; two a second come from training

log = logging.getLogger("zoo.wandb")
_unreachable = threading.Event()  # once an online start has failed, the next cells do not wait for another


def choose_mode(mode: Mode) -> Mode:
    """What ``auto`` means here: $WANDB_MODE if set, else online where a key is configured, else disabled.

    Raises UsageError for another word.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"there is no wandb mode '{mode}': {', '.join(get_args(Mode))}.")
    if mode != "auto":
        return mode
    asked = os.environ.get("WANDB_MODE", "")
    if (asked := OLDER.get(asked, asked)) in ("online", "offline", "disabled"):
        return asked  # type: ignore[return-value]
    known = importlib.util.find_spec("wandb") is not None
    return "online" if known and has_key() else "disabled"


def server() -> SplitResult:
    """The address that wandb speaks with: $WANDB_BASE_URL, else its own."""
    return urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))


def has_key() -> bool:
    """Whether a key is configured: in $WANDB_API_KEY, or in the netrc where `wandb login` leaves it."""
    return bool(os.environ.get("WANDB_API_KEY")) or _in_netrc()


class Observer:
    """One run, as Weights & Biases sees it, in the project $WANDB_PROJECT, else vae-zoo. No method raises, and only
    `finish` waits: for the upload.

    Args:
        mode: see `choose_mode`.
        dir: wandb makes its folder ``wandb`` in it. Default: the working folder.
        start_timeout, finish_timeout: seconds.
    """

    def __init__(
        self,
        mode: Mode = "auto",
        dir: str | Path | None = None,
        start_timeout: float = 30.0,
        finish_timeout: float = 60.0,
    ) -> None:
        self.mode = choose_mode(mode)
        self.dir = Path(dir or ".").resolve()
        self.project = os.environ.get("WANDB_PROJECT") or "vae-zoo"
        self.start_timeout, self.finish_timeout = start_timeout, finish_timeout
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._queue: queue.Queue[bytes | None] = queue.Queue(PENDING)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._off = True
        self._told = False

    @property
    def active(self) -> bool:
        """Whether anybody still listens."""
        return not self._off

    def start(self, config: Mapping[str, Any], name: str, group: str, run_id: str) -> None:
        """Begin the run; one of the same ``run_id`` is taken up again. ``config`` is plain JSON."""
        if self.mode == "disabled" or (self.mode == "online" and _unreachable.is_set()) or self._process:
            return
        try:
            message = {
                "id": re.sub(r"[^\w.-]", "-", run_id)[:128], "name": name, "group": group, "config": config,
                "mode": self.mode, "project": self.project, "dir": str(self.dir),
                "timeout": self.start_timeout,
            }  # fmt: skip
            # -P: the script's folder holds a wandb.py that is not wandb. Its own session: Ctrl-C is for us.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("wandb_process.py"))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            self._off = False
            for task in (self._write, self._read):
                threading.Thread(target=task, name="wandb observer", daemon=True).start()
            self._send(message)
        except Exception as error:
            self._turn_off(f"{type(error).__name__}: {error}")

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers at a step; None is left out."""
        if self.active:
            self._guarded(lambda: {"kind": "log", "step": int(step), "values": _numbers(values)})

    def images(self, step: int, name: str, images: Any) -> None:
        """A grid of uint8 (N, C, H, W) images, C of 1 or 3, at a step."""

        def message() -> dict[str, Any]:
            from benchmarks.report.figures import png

            picture = base64.b64encode(png(images)).decode()
            return {"kind": "images", "step": int(step), "name": name, "png": picture}

        if self.active:
            self._guarded(message)

    def finish(self, metrics: Mapping[str, Any] | None = None, failed: bool = False) -> None:
        """End the run with its summary (name -> number). Waits at most ``finish_timeout`` for that.

        ``failed`` marks it so; a run that is never finished is marked too, when the training process ends.
        """
        if not self.active:
            return
        self._guarded(lambda: {"kind": "finish", "summary": _numbers(metrics or {}), "failed": bool(failed)})
        if not self._over.wait(self.finish_timeout + (0.0 if self.url else self.start_timeout)):
            self._turn_off(
                f"it did not finish in time; what it has is in {self.dir.name}/wandb (`wandb sync`)"
            )
        self._off = True
        self._end_queue()

    def _guarded(self, message: Any) -> None:
        try:
            self._send(message())
        except Exception as error:
            self._turn_off(f"{type(error).__name__}: {error}")

    def _send(self, message: dict[str, Any]) -> None:
        # As text at once: what the caller does to its objects afterwards is not observed.
        try:
            self._queue.put_nowait(json.dumps(message, default=str).encode() + b"\n")
        except queue.Full:
            self._turn_off("it does not keep up")

    def _write(self) -> None:
        assert self._process and self._process.stdin
        try:
            while (line := self._queue.get()) is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            self._process.stdin.close()
        except OSError:
            pass  # the reader sees the end of the process, and knows more

    def _read(self) -> None:
        assert self._process and self._process.stdout
        reason = "its process ended"
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event["event"] == "started":
                self.url = event["url"] or "offline"
            elif event["event"] == "done":
                reason = ""
            elif event["event"] == "error":
                reason = event["message"]
        self._process.wait()
        if reason:
            if not self.url and not self._told and self.mode == "online":
                _unreachable.set()
            self._turn_off(reason)
        self._over.set()

    def _turn_off(self, reason: str) -> None:
        with self._lock:
            if self._told or self._over.is_set():
                return
            self._told = True
            # Before anybody sees that it is off, and may end the process.
            log.warning("Weights & Biases is off for this run, which goes on: %s.", _without_keys(reason))
            self._off = True
        if self._process:
            self._process.kill()
        self._end_queue()
        self._over.set()

    def _end_queue(self) -> None:
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            pass  # the process is killed, so the writer ends at its next word


def _numbers(values: Mapping[str, Any]) -> dict[str, float | int]:
    return {
        name: value if isinstance(value, int) else float(value)
        for name, value in values.items()
        if value is not None
    }


def _in_netrc() -> bool:
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(path).authenticators(server().netloc):
                return True
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
    return False


def _without_keys(text: str) -> str:
    """One line without this user's key or anything that looks like one."""
    line = one_line(text)
    if key := os.environ.get("WANDB_API_KEY"):
        line = line.replace(key, "(key)")
    return re.sub(r"\b[0-9A-Za-z_-]{36,}\b", "(key)", line)[:300].rstrip(".")
