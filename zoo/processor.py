"""What this machine's processor is, where the system says so (/proc/cpuinfo of Linux); imports no torch."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

#: The family of AMD's Zen 5, the first whose units are as wide as AVX-512's registers.
ZEN_5 = 0x1A


@functools.cache
def fields() -> dict[str, str]:
    """What the system says of its first processor, by name, such as 'model name'; nothing where it says nothing."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^([^\t:\n]+?)\s*: (.*)$", text.split("\n\n")[0], re.M))


def cores() -> int:
    """How many of its cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def multiplies_bf16() -> bool:
    """Whether it has instructions that multiply bf16 (AVX512-BF16 or AMX); false where nobody can tell."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(fields().get("flags", "").split())


def halved_by_mkl() -> bool:
    """Whether MKL leaves half of its width unused: AMD's from Zen 5 on, with AVX-512; false where nobody can tell."""
    family = fields().get("cpu family", "")
    wide = fields().get("vendor_id") == "AuthenticAMD" and family.isdigit() and int(family) >= ZEN_5
    return wide and "avx512f" in fields().get("flags", "").split()
