"""Broken and hostile input: one sentence and an exit code, never a traceback, a hang, or a changed good file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import cli, record, suite
from benchmarks.running import single
from tests.conftest import ROOT
from tests.faults.children import FAULTS, SUITE
from tests.test_record import plain
from tests.test_training import run
from zoo import registry
from zoo.config import resolve
from zoo.data.mapped import mapped_pixels
from zoo.errors import UsageError, ZooError
from zoo.runs import load_run
from zoo.runs.images import _check_types, load_images
from zoo.training import checkpoint

SECONDS = 10.0
REGISTRY = """\
schema: 1
variants:
  vae:
    class: zoo.models.vae:VanillaVAE
    title: VAE
    paper: {title: Auto-Encoding, authors: Kingma and Welling, year: 2014, url: https://arxiv.org/abs/1312.6114}
    settings: {latent: 32, encoder: {hidden: [512, 512]}}
    provides: [likelihood]
    published:
      - {dataset: mnist, metric: nll, value: 88.2, source: "Table 1", mark: R}
datasets:
  synthetic:
    load: zoo.data.synthetic:load_synthetic
    title: Strokes
    shape: [1, 28, 28]
    support: 8-bit
    binarise: dynamic
    classes: 10
"""


def many(usual: int) -> int:
    """How many inputs of one kind; ZOO_FAULTS=N asks for N of each."""
    return FAULTS or usual


class Hang(BaseException):
    pass


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Whatever happens inside takes less than ten seconds (of this process: the machine may be busy)."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def call(*words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `zoo WORDS`; any exception but SystemExit is a traceback and fails the test."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["zoo", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), in_time():
            cli.main()
        code: object = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    finally:
        sys.argv = before
    assert code in (0, 1, 2), (words, code)
    said = err.getvalue()
    if code:
        assert said.startswith("zoo: ") and len(said.strip().splitlines()) == 1 and len(said) < 3000, (words, said)
    return int(code), out.getvalue(), said


def broken(data: bytes, chance: random.Random) -> bytes:
    """``data`` with a few bytes flipped, cut short, doubled, or with something nasty put in."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + chance.randint(1, 20)]
            case 2:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 60)]
            case 4:
                data[at : at + 1] = chance.choice([b"\x00", b"\xff", b"{", b"[" * 40, b"&a ", b"*a", b"!!python/name:os", b"-", b": ", b"1e999", b"9" * 30, b"..", b"/", b"\n", b"null", b"~", b"\t", b"NaN", b"\xed\xa0\x80", b"2001-99-99"])  # noqa: E501
            case _:
                for _ in range(chance.randint(1, 4)):
                    if data:
                        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def hashes(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


# ---- files in a text format ------------------------------------------------------------------------------------------


@pytest.fixture
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "registry.yaml"
    path.write_text(REGISTRY)
    monkeypatch.setattr(registry, "registry_path", lambda: path)
    monkeypatch.setattr(registry, "_plugins", lambda *given: {})
    registry.registry.cache_clear()
    yield path
    monkeypatch.undo()
    registry.registry.cache_clear()


def test_broken_registries(own_registry: Path) -> None:
    chance = random.Random(1)
    codes = []
    for turn in range(many(250)):
        own_registry.write_bytes(broken(REGISTRY.encode(), chance))
        registry.registry.cache_clear()
        codes.append(call(*(("list",), ("list", "datasets"), ("show", "vae"))[turn % 3])[0])
    assert codes.count(2) > len(codes) / 3 and (0 in codes or len(codes) < 100), "some are merely different"


def test_broken_suites(tmp_path: Path) -> None:
    chance = random.Random(2)
    path = tmp_path / "faulty.yaml"
    codes = []
    for _ in range(many(400)):
        path.write_bytes(broken(SUITE.encode(), chance))
        codes.append(call("bench", str(path), "--plan", "--board", str(tmp_path / "b"))[0])
    assert codes.count(2) > len(codes) / 3 and (0 in codes or len(codes) < 100)
    assert [entry.name for entry in tmp_path.iterdir()] == ["faulty.yaml"]


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    "text",
    [
        f"defaults:\n  model:\n{''.join('    ' + line + chr(10) for line in LAUGHS.splitlines())}",
        "defaults: &d {model: *d}\n",
        "defaults: &d\n  model: {x: *d}\n",
        "name: ../../etc\n",
        "variants: ['../../vae']\n",
        "version: !!python/object/apply:os.system ['touch ran']\n",
        "seeds: [-1]\n",
        "seeds: [1e400]\n",
        f"title: {'x' * (1 << 21)}\n",
        f"defaults: {'[' * 5000}\n",
        f"seeds: [{'9' * 6000}]\n",
        "extends: ../../registry\n",
        "extends: /etc/passwd\n",
    ],
    ids=lambda text: text[:24].strip(),
)
def test_hostile_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    key = text.split(":")[0]
    kept = suite_without(key)
    (tmp_path / "faulty.yaml").write_text(kept + text)
    code, _, said = call("bench", "faulty.yaml", "--plan")
    assert code == 2, said
    assert not (tmp_path / "ran").exists()


def suite_without(key: str) -> str:
    lines, skipping = [], False
    for line in SUITE.splitlines():
        if not line.startswith(" "):
            skipping = line.split(":")[0] == key
        if not skipping:
            lines.append(line)
    return "\n".join(lines) + "\n"


def test_broken_records(tmp_path: Path) -> None:
    chance = random.Random(3)
    board = tmp_path / "board"
    good = record.write(record.parse(plain()), board / "records")
    other = json.loads(good.read_text())
    other["cell"]["seed"] = 1
    path = record.write(record.parse(other), board / "records")
    whole = path.read_bytes()
    codes = []
    for _ in range(many(500)):
        path.write_bytes(broken(whole, chance))
        before = hashes(board / "records")
        codes.append(call("leaderboard", "--board", str(board))[0])
        assert hashes(board / "records") == before
    assert codes.count(1) > len(codes) / 3
    path.write_bytes(whole)
    assert call("leaderboard", "--board", str(board))[0] == 0


TEXT = "aZ09_.+@-/\\ \n\t\"'{}[]=:,&*!%~\u00e4\u4e2d\U0001f600"
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(TEXT, max_size=5)
json_values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(TEXT), inner))


@settings(max_examples=many(250), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(plain())), st.sampled_from(["", "value", "n", "suite", "variants", "seed"]), json_values)
def test_records_of_any_shape(field: str, inner: str, value: object) -> None:
    content = plain()
    if inner and isinstance(content[field], dict):
        content[field][inner] = value
    else:
        content[field] = value
    with in_time(), contextlib.suppress(ZooError):
        record.dump(record.parse(content))


# ---- runs of somebody else -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    torch.manual_seed(0)
    run(folder, "train.epochs=1")
    return folder


def test_broken_models(finished: Path, tmp_path: Path) -> None:
    chance = random.Random(4)
    folder = shutil.copytree(finished, tmp_path / "run")
    whole = (folder / "model.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    refused = 0
    for turn in range(many(400)):
        # Half of the damage to the header, which says what the rest is.
        data = broken(whole[:header], chance) + whole[header:] if turn % 2 else broken(whole, chance)
        (folder / "model.safetensors").write_bytes(data)
        with in_time():
            try:
                load_run(folder)
            except ZooError as error:
                refused += 1
                assert str(folder) in str(error) and len(str(error).splitlines()) == 1
        assert (folder / "model.safetensors").read_bytes() == data
    assert refused > 0.9 * many(400), "a flip in the metadata's free text may pass"


def test_broken_descriptions(finished: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    folder = shutil.copytree(finished, tmp_path / "run")
    whole = (folder / "run.json").read_bytes()
    refused = 0
    for _ in range(many(250)):
        (folder / "run.json").write_bytes(broken(whole, chance))
        with in_time():
            try:
                load_run(folder)
            except ZooError as error:
                refused += 1
                assert len(str(error).splitlines()) == 1
    assert refused > many(250) / 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("spec",), {}),
        (("spec", "shape"), [1, 10**6, 10**6]),
        (("spec", "shape"), [1, -28, 28]),
        (("spec", "shape"), "abc"),
        (("spec", "classes"), 10**12),
        (("spec", "support"), []),
        (("config", "variant"), "../../vae"),
        (("config", "variant"), 7),
        (("config", "model", "latent"), 10**15),
        (("config", "model", "encoder", "hidden"), [10**9, 10**9]),
        (("config", "model", "encoder", "timm"), "hf-hub:somebody/something"),
        (("config", "model", "encoder", "timm"), "local-dir:/tmp"),
        (("config",), []),
        (("config", "model"), {"__class__": "os.system"}),
    ],
    ids=str,
)
def test_hostile_descriptions(finished: Path, tmp_path: Path, key: tuple[str, ...], value: object) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    described = json.loads((folder / "run.json").read_text())
    place = described
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    (folder / "run.json").write_text(json.dumps(described))
    with in_time(), pytest.raises(ZooError):
        load_run(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        "train.betas=[1.5,0.9]", "train.learning_rate=.inf", "train.stages=[[2,-1]]", "train.schedule=stages",
        "train.stages=[[2,0.1]]", "data.test_bits_seed=99999999999999999999999", "evaluate.seed=9223372036854775808",
        "data.options.n_train=.nan", "data.options.n_train=-.inf", "data.options.n_train=[2, 2001-01-01]",
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong.split("=")[0].split(".")[0]):
        resolve("vae", "synthetic", settings=[wrong])


def test_directions_have_no_norm_to_clip() -> None:
    with pytest.raises(UsageError, match="nothing to clip"):
        resolve("vae", "synthetic", settings=["train.optimizer=adamnormgrad", "train.clip=1"])


@pytest.mark.parametrize(
    ("data", "wrong", "said"),
    [
        ("synthetic", "n_train=abc", "setting 'data.options.n_train': input should be a valid integer, unable to parse "
         "string as an integer (got 'abc')."),
        ("synthetic", "n_train=1.5", "setting 'data.options.n_train': input should be a valid integer, got a number "
         "with a fractional part (got 1.5)."),
        ("synthetic", "n_train=-5", "data set 'synthetic' cannot be made with the options {\"n_train\":-5}: negative "
         "dimensions are not allowed."),
        ("synthetic", "shape=[1,28]", "setting 'data.options.shape': the list is too short (got [1, 28])."),
        ("synthetic", "n_trian=5", "data set 'synthetic' has no option 'n_trian'. Did you mean 'n_train'? Known here: "
         "n_train, n_validation, n_test, shape, seed, exclude_class."),
        ("synthetic", "foo=5", "data set 'synthetic' has no option 'foo'. Known here: n_train, n_validation, n_test, "
         "shape, seed, exclude_class."),
        ("ppca", "foo=5", "data set 'ppca' has no option 'foo'. Known here: n_train, n_validation, n_test, dims, "
         "latent, s2, seed."),
        ("mnist", "root=[3]", "setting 'data.options.root': input should be a valid string, or a path (got [3])."),
    ],
)  # fmt: skip
def test_options_that_a_data_set_cannot_be_made_with_are_one_sentence(data: str, wrong: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_images(resolve("vae", data, settings=[f"data.options.{wrong}"]))
    assert str(caught.value) == said


def test_a_loading_function_may_name_types_that_say_nothing_of_what_it_is_given() -> None:
    def loader(size: Nowhere, kind: torch.Tensor, n: int = 0) -> None:  # noqa: F821
        raise AssertionError

    _check_types(loader, {"size": 3, "kind": 3, "n": "x"})
    loader.__annotations__.pop("size")
    _check_types(loader, {"kind": 3})
    with pytest.raises(UsageError, match="'data.options.n'"):
        _check_types(loader, {"kind": 3, "n": "x"})


def test_a_pickle_is_refused_wherever_it_lies_and_does_not_run(finished: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (mark,))

    folder = shutil.copytree(finished, tmp_path / "run")
    torch.save({"model": Bomb()}, folder / "model.safetensors")
    with pytest.raises(ZooError, match="not a readable checkpoint"):
        load_run(folder)
    (folder / "model.safetensors").unlink()
    steps = folder / "checkpoints"
    steps.mkdir(exist_ok=True)
    torch.save({"model": Bomb()}, steps / "step-000000004.safetensors")
    torch.save(Bomb(), steps / "good-000000000.safetensors")
    resumed = run(folder, "train.epochs=1")
    assert resumed.result.steps == 8 and not mark.exists()


def test_a_checkpoint_of_another_kind_of_run_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "model.safetensors").unlink()
    for tensors, state in (
        ({"model/x": torch.zeros(3)}, {"step": 3}),
        ({}, {}),
        ({"rng/cpu": torch.zeros(3)}, {"step": "many"}),
        ({}, {"step": 10**9}),
    ):
        checkpoint.write_step(folder / "checkpoints", 3, tensors, state)
        with pytest.raises(ZooError, match="not of this version and configuration"):
            run(folder, "train.epochs=1")


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_broken_memory_maps_are_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path))
    chance = random.Random(6)
    right = np.random.RandomState(0).randint(0, 256, (6, 1, 5, 5), dtype=np.uint8)

    def built() -> tuple[np.ndarray, str]:
        return mapped_pixels("maps", {"kind": "test"}, right.shape, lambda array: array.__setitem__(..., right))

    _, digest = built()
    files = sorted(path for path in (tmp_path / "maps").iterdir() if path.suffix in (".u8", ".json"))
    assert len(files) == 2
    for turn in range(many(150)):
        path = files[turn % 2]
        path.write_bytes(broken(path.read_bytes(), chance))
        with in_time():
            found, said = built()
        assert np.array_equal(found, right) and said == digest


def test_a_map_that_is_there_takes_no_lock_and_one_that_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path))
    filled: list[tuple[int, ...]] = []

    def built(size: int) -> str:
        return mapped_pixels("maps", {"size": size}, (size,), lambda array: filled.append(array.shape))[1]

    digest = built(7)
    (tmp_path / "maps" / ".lock").unlink()
    assert built(7) == digest and filled == [(7,)]
    assert not (tmp_path / "maps" / ".lock").exists()  # a cache may be another's, to read only

    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = sorted((tmp_path / "maps").iterdir())
    with pytest.raises(OSError, match="No space left"):
        built(8)
    assert filled == [(7,)]
    assert [path for path in sorted((tmp_path / "maps").iterdir()) if path.name != ".lock"] == before


# ---- the command line ------------------------------------------------------------------------------------------------

COMMANDS = ["list", "show", "train", "bench", "choose", "leaderboard", "score", "fid", "measure", "fetch", "frob", ""]
WORDS = [
    "vae", "vq_vae", "variants", "mnist", "synthetic", "quick", "smoke", "smoke.yaml", "fid", "mig", "--json", "--plan",
    "--missing", "--seed", "--seeds", "--set", "--out", "--jobs", "--data", "--variants", "--datasets", "--device",
    "--wandb", "--board", "--runs", "--metrics", "cpu", "cuda:7", "-1", "0", "3", "1e9", "auto", "disabled", "--help",
    "--", "-", "..", "/", "/dev/null", "/proc/self/mem", "train.epochs=3", "train.epochs=-1", "train.betas=[1]",
    "latent=2", "latent=", "=3", "a.b.c.d=1", "encoder.timm=hf-hub:a/b", "train.epochs=2001-99-99", "x={", "train=3",
    "data.name=../x", "train.epochs=" + "9" * 5000, "latent=&a [*a]", "data.options.n_train=-4", "model.latent=.nan",
]  # fmt: skip
word = st.sampled_from(WORDS) | st.text(TEXT, max_size=12)
paths = st.sampled_from(["train.epochs", "train.betas", "latent", "data.name", "evaluate.seed", "encoder", "", "a.b"])
setting = st.tuples(st.just("--set"), st.builds("{}={}".format, paths, st.text(TEXT, max_size=10)))
argument = word.map(lambda text: (text,)) | setting


@settings(max_examples=many(500), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(COMMANDS), st.lists(argument, max_size=5))
def test_any_command_line(command: str, given_words: list[tuple[str, ...]]) -> None:
    words = [command, *(text for part in given_words for text in part)]
    with pytest.MonkeyPatch.context() as patch:
        # What a command line means is what is tested; it must not be done.
        def nothing(*_: object, **__: object) -> None:
            raise ZooError("not done in this test.")

        patch.setattr(single, "run", nothing)
        patch.setattr("benchmarks.commands.bench.run_all", nothing)
        patch.setattr("benchmarks.running.amend.amend", nothing)
        patch.setattr("zoo.data.fetch.fetch_asset", nothing)
        patch.setattr("benchmarks.metrics.weights.fetched", nothing)
        with tempfile.TemporaryDirectory() as empty:
            patch.chdir(empty)
            try:
                call(*words)
            finally:
                patch.chdir(ROOT)


@pytest.mark.parametrize("words", [("fid", "~no-one", "~"), ("train", "vae", "--data", "folder:~no-one")])
def test_the_home_of_nobody_is_no_place(words: tuple[str, ...]) -> None:
    code, _, said = call(*words)
    assert code == 2 and "'~no-one' is in the folder of a user that is not known here" in said


def test_a_sample_of_it_through_a_real_process(tmp_path: Path) -> None:
    (tmp_path / "faulty.yaml").write_bytes(SUITE.encode()[:200] + b"\xff\x00{" + SUITE.encode()[200:])
    cases: list[tuple[tuple[str, ...], int]] = [
        (("bench", "faulty.yaml", "--plan"), 2),
        (("train", "vae", "--set", "latent=&a [*a]"), 2),
        (("leaderboard", "--board", "/dev/null"), 2),
    ]
    for words, expected in cases:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cli", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == expected, done.stderr
        assert done.stderr.startswith("zoo: ") and len(done.stderr.splitlines()) == 1


# ---- the machine -----------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> str:
    """What ``work`` raised in a forked process ('' if nothing)."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        said = ""
        try:
            work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode()[:4000])
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def limit_files(size: int) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    # A limit on the size of files is met in the same calls as a full disk.
    words = ("train", "vae", "--data", "synthetic", "--set", "train.epochs=2", "--set", "encoder.hidden=[16]")
    words += ("--set", "decoder.hidden=[16]", "--set", "train.checkpoint_seconds=0", "--out", str(tmp_path / "run"))
    words += ("--wandb", "disabled", "--device", "cpu", "--set", "evaluate.quality_samples=0")

    def full() -> None:
        limit_files(50_000)
        code, _, said = call(*words)
        assert code == 1 and "File too large" in said and "goes on from here" in said, said

    assert in_child(full) == ""
    assert not list((tmp_path / "run").rglob("*.part")) and not (tmp_path / "run" / "record.json").exists()
    torch.manual_seed(0)

    def room() -> None:
        code, _, said = call(*words)
        assert code == 0, said

    assert in_child(room) == ""
    assert record.read(tmp_path / "run" / "record.json").status == "done"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    from zoo.files import atomic_write

    path = tmp_path / "file"
    atomic_write(path, b"old" * 10)

    def full() -> None:
        limit_files(1000)
        atomic_write(path, b"x" * 100_000)

    said = in_child(full)
    assert said.startswith("OSError") and str(path) in said
    assert path.read_bytes() == b"old" * 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.chdir(tmp_path)
    words = ("train", "vae", "--data", "synthetic", "--wandb", "disabled", "--device", "cpu")
    code, _, said = call(*words, "--out", "file/run")
    assert code == 2 and "cannot be written" in said
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        assert call(*words, "--out", "closed/run")[0] == 2
    assert call(*words, "--out", "/proc/run")[0] == 2, "nobody may write there, root neither"


@pytest.mark.parametrize(
    "words",
    [
        ("compress", "run", "/proc/x.zoo"), ("decompress", "run", "x.zoo", "/proc/x.npz"), ("export", "run", "/proc/x"),
        ("sample", "run", "--out", "/proc/x/y.png"), ("evaluate", "run", "--out", "/proc/x.json"),
        ("new", "mine", "--plugin", "/proc/x"), ("choose", "smoke", "--out", "/proc/x.json"),
        ("bench", "smoke", "--board", "/proc/x"), ("bench", "smoke", "--board", "/proc/x", "--on", "ray"),
        ("reproduce", "iwae_1l_k5_short", "--board", "/proc/x"),
        ("choose", "smoke", "--variants", "beta_vae", "--sweep", "beta=1,2", "--board", "/proc/x"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_anything_is_made_for_it(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, said = call(*words)
    assert (code, out, list(tmp_path.iterdir())) == (2, "", [])
    assert said.startswith("zoo: ") and len(said.splitlines()) == 1
    assert "/proc/x" in said and "cannot be written (No such file or directory)" in said and "goes on" not in said


def test_whether_a_folder_can_be_written_is_asked_without_leaving_anything(tmp_path: Path) -> None:
    from zoo.files import check_writable

    check_writable(tmp_path)
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    made = run(tmp_path, "train.epochs=2", "train.checkpoint_seconds=0")
    assert made.result.steps == 16 and made.result.seconds >= 0


def test_an_old_schema_and_a_newer_one_are_told_apart(tmp_path: Path) -> None:
    for schema, said in ((0, "has schema 0, which vae-zoo cannot read"), (99, "update it")):
        place = tmp_path / f"s{schema}" / "records" / "quick@1"
        place.mkdir(parents=True)
        (place / "x.json").write_text(json.dumps(plain(schema=schema)))
        code, _, err = call("leaderboard", "--board", str(place.parent.parent))
        assert code == 1 and said in err


def test_the_registry_names_no_way_out(own_registry: Path, tmp_path: Path) -> None:
    own_registry.write_text(REGISTRY.replace("  vae:", "  ../../vae:"))
    registry.registry.cache_clear()
    with pytest.raises(UsageError):
        registry.registry()
    with pytest.raises(UsageError):
        suite.read_suite(ROOT / "LICENSE")
