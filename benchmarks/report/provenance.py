"""What made the numbers of a table: the data, the code, the machines and the versions, as plain text."""

from __future__ import annotations

from benchmarks.record import Environment
from benchmarks.report.tables import Table


def facts(table: Table) -> dict[str, str]:
    """``code``, ``device``, ``precision``, ``python``, ``torch`` and the packages: every value that occurs."""
    every = [record.environment for record in table.records]
    packages = sorted({name for one in every for name in (one.model_extra or {})})
    found = {
        "code": [_commit(one) for one in every],
        "device": [one.device for one in every],
        "precision": [one.precision for one in every],
        "python": [one.python for one in every],
        "torch": [one.torch for one in every],
        **{name: [(one.model_extra or {}).get(name) for one in every] for name in packages},
    }
    return {
        name: ", ".join(dict.fromkeys(sorted(str(value) for value in values if value is not None)))
        for name, values in found.items()
        if any(value is not None for value in values)
    }


def span(table: Table) -> str:
    """``24 records of 2026-11-22``."""
    days = sorted(record.when[:10] for record in table.records)
    many = f"{len(days)} records" if len(days) != 1 else "1 record"
    return f"{many} of {days[0] if days[0] == days[-1] else f'{days[0]} to {days[-1]}'}"


def data(table: Table) -> str:
    """What was learnt from and measured on; "" where no record got so far."""
    if (data := table.data) is None:
        return ""
    noisy = data.support == "dequantised"
    bits = f", {data.binarise} binarisation" if isinstance(data.binarise, str) and not noisy else ""
    drawn = "noise on test bytes" if noisy else "test bits"
    seed = f" ({drawn} of seed {data.test_bits_seed})" if data.test_bits_seed is not None else ""
    sizes = f"{data.n.train:,} / {data.n.validation:,} / {data.n.test:,} images"
    return f"{data.name}, sha256 {data.sha256[:12]}, {data.support}{bits}{seed}, {sizes}"


def _commit(one: Environment) -> str:
    return (one.git_commit or "unknown commit")[:12] + (" (dirty)" if one.git_dirty else "")
