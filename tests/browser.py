"""A headless Chromium, driven over its own pipe: commands and events as JSON that ends in NUL."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium")
_WAIT = 60.0  # seconds after which a test has failed
_FLAGS = (
    "--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank",
)  # fmt: skip


class Browser:
    """One page in one browser; what went wrong in it is in `complaints`."""

    def __init__(self) -> None:
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (theirs_in, self._out), (self._in, theirs_out) = _pipe(), _pipe()
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        flags = [f"--user-data-dir={self._profile.name}", *sandbox, *_FLAGS]
        quiet = os.open(os.devnull, os.O_RDWR)
        self._pid = os.posix_spawn(
            CHROMIUM, [CHROMIUM, *flags], {**os.environ, "HOME": self._profile.name},
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, quiet, one) for one in (0, 1, 2)),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            ],
            setpgroup=0,
        )  # fmt: skip
        for one in (theirs_in, theirs_out, quiet):
            os.close(one)
        self._read, self._count, self._session = b"", 0, ""
        self.complaints: list[str] = []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.command(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            assert select.select([self._in], [], [], _WAIT)[0], "the browser says nothing"
            more = os.read(self._in, 1 << 20)
            assert more, "the browser is gone"
            self._read += more
        first, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        """Remember errors, exceptions and what a policy refused."""
        params = event.get("params", {})
        if event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        elif event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "warning",
        ):
            self.complaints.append(json.dumps(params["args"]))

    def open(self, url: str) -> None:
        """Go there, and forget what was wrong before."""
        self.command("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href.startsWith('{url}')")

    def value(self, script: str) -> Any:
        """Return what an expression is worth in the page."""
        got = self.command("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in got, (script, got["exceptionDetails"])
        return got["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + _WAIT
        while not self.value(f"!!({script})"):
            assert time.monotonic() < end, (script, self.value("document.body.innerText"))
            time.sleep(0.02)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press one key."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        if key != " ":
            about["code"] = key
        self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.command("Input.insertText", text=text)

    def give(self, selector: str, *files: Path) -> None:
        """Choose files in an input."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=node, files=[str(one) for one in files])


def _pipe() -> tuple[int, int]:
    """Return ends that stand above the two numbers that the browser expects."""
    ends = os.pipe()
    higher = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 16) for one in ends]
    for one in ends:
        os.close(one)
    return higher[0], higher[1]
