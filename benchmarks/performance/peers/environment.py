"""An environment of pythae's own in the cache folder: nothing of it is a dependency of ours.

It has pythae 0.1.2, the newest that the package index has, and sees our installation of PyTorch and the rest, so that
both sides compute with the same kernels.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from zoo.errors import ZooError, one_line
from zoo.files import cache_dir

VERSION = "0.1.2"


def python() -> Path:
    """The interpreter of that environment, which is made if it is not there.

    Raises:
        ZooError: it could not be installed (no network, no pip).
    """
    folder = cache_dir() / f"pythae-{VERSION}-environment"
    interpreter = folder / "bin" / "python"
    if _works(interpreter):
        return interpreter
    venv.create(folder, clear=True, with_pip=False)
    own = next((folder / "lib").glob("python*/site-packages"))
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "ours.pth").write_text("\n".join(sorted(ours)) + "\n")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(own), f"pythae=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not _works(interpreter):
        said = one_line(done.stderr or "it does not import with these versions")[-300:]
        raise ZooError(f"pythae {VERSION} could not be installed for the comparison: {said}")
    return interpreter


def _works(interpreter: Path) -> bool:
    if not interpreter.exists():
        return False
    return not subprocess.run([interpreter, "-c", "import pythae.trainers"], capture_output=True).returncode
