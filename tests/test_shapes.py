"""Generated sets: pictures are what the description says, on every machine, and the factors are theirs."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from zoo.data import grids, room, shapes, shapes3d, sprites
from zoo.data.images import ImageSet
from zoo.data.shapes import load_shapes
from zoo.data.shapes3d import load_shapes3d
from zoo.data.strokes import MEASURES, measure_strokes, with_stroke_factors
from zoo.data.synthetic import load_ppca, load_synthetic
from zoo.errors import UsageError, ZooError


def some_factors(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([rng.integers(0, size, n) for size in sprites.SIZES], axis=1)


@pytest.fixture(scope="module")
def mini() -> ImageSet:
    return load_shapes(grid="mini")


def by_hand(shape: int, scale: int, turn: int, px: int, py: int) -> np.ndarray:
    """The description in floating point and with no table: bool (64, 64)."""
    angle = 2 * np.pi * turn / 39
    y, x = np.mgrid[:64, :64] + 0.5
    dx, dy = x - (16 + 32 * px / 31), y - (16 + 32 * py / 31)
    size = (5 + scale) / 10
    u = (dx * np.cos(angle) - dy * np.sin(angle)) / size
    v = (dx * np.sin(angle) + dy * np.cos(angle)) / size
    if shape == 0:
        return (abs(u) <= 9.6) & (abs(v) <= 9.6)
    if shape == 1:  # 64 half-planes
        sides = 2 * np.pi * (np.arange(64) + 0.5) / 64
        far = (u / 12.78)[..., None] * np.cos(sides) + (v / 7.22)[..., None] * np.sin(sides)
        return far.max(-1) <= np.cos(np.pi / 64)
    # The heart: a ray to the right crosses a fine polygon an odd number of times.
    t = np.linspace(0, 2 * np.pi, 4001)
    hx = 64 * 0.15 * np.sin(t) ** 3
    hy = 64 * (-0.0225 - 0.01035 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)))
    inside = np.zeros(u.shape, bool)
    near = np.flatnonzero((dx**2 + dy**2).ravel() < 14**2)
    a, b = u.ravel()[near, None], v.ravel()[near, None]
    crosses = (hy[:-1] > b) != (hy[1:] > b)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = hx[:-1] + (b - hy[:-1]) * (hx[1:] - hx[:-1]) / (hy[1:] - hy[:-1])
    inside.ravel()[near] = (crosses & (at > a)).sum(1) % 2 == 1
    return inside


def test_pictures_are_what_the_description_says() -> None:
    factors = some_factors(80)
    drawn = sprites.render(factors)
    assert drawn.dtype == np.uint8 and set(np.unique(drawn)) == {0, 255}
    # The tables put an outline off by 1/8000 of a pixel at most: one pixel in many pictures may fall on the
    # other side.
    off = np.array([(by_hand(*f) != (d[0] > 0)).sum() for f, d in zip(factors.tolist(), drawn, strict=True)])
    assert off.sum() <= 1


def test_pictures_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(sprites.render(some_factors(3000)).tobytes()).hexdigest()
    assert digest == "e6ffb3ab025148e3732fc488519879f0161120702684bb50e93744d0cefe1fab"


def test_the_order_of_drawing_does_not_matter() -> None:
    factors = some_factors(700)
    whole = sprites.render(factors)
    shuffled = np.random.default_rng(0).permutation(len(factors))
    assert np.array_equal(sprites.render(factors[shuffled]), whole[shuffled])
    assert np.array_equal(np.concatenate([sprites.render(factors[k : k + 1]) for k in range(20)]), whole[:20])
    assert sprites.render(factors[:0]).shape == (0, 1, 64, 64)


def test_corners_of_the_grid_are_not_cut_off() -> None:
    for px, py in ((0, 0), (0, 31), (31, 0), (31, 31)):
        for shape in range(3):
            here, middle = sprites.render(np.array([(shape, 5, 5, px, py), (shape, 5, 5, 16, 16)]))
            assert abs(int((here > 0).sum()) - int((middle > 0).sum())) < 12
            assert not (here[0, [0, -1]].any() or here[0, :, [0, -1]].any())


def test_factors_move_scale_and_turn_the_shape() -> None:
    def centre(*factors: int) -> np.ndarray:
        y, x = np.nonzero(sprites.render(np.array([factors]))[0, 0])
        return np.array([x.mean(), y.mean()]) + 0.5

    def area(*factors: int) -> int:
        return int((sprites.render(np.array([factors])) > 0).sum())

    for shape in (0, 1):
        np.testing.assert_allclose(centre(shape, 5, 3, 0, 31), (16, 48), atol=0.3)
        np.testing.assert_allclose(centre(shape, 2, 7, 31, 15), (48, 16 + 32 * 15 / 31), atol=0.3)
    assert area(0, 5, 0, 9, 9) == pytest.approx(19.2**2, rel=0.06)
    assert area(1, 5, 0, 9, 9) == pytest.approx(np.pi * 12.78 * 7.22, rel=0.03)
    for shape in range(3):
        areas = [area(shape, scale, 3, 9, 9) for scale in range(6)]
        np.testing.assert_allclose(np.array(areas) / areas[-1], (0.5 + 0.1 * np.arange(6)) ** 2, rtol=0.08)
    # Counter-clockwise on the screen: the heart's tip points down, then (a quarter on) to the right.
    heart = sprites.render(np.array([(2, 5, 0, 16, 16), (2, 5, 10, 16, 16)]))[:, 0] > 0
    rows, columns = np.flatnonzero(heart[0].any(1)), np.flatnonzero(heart[1].any(0))
    assert heart[0][rows[-1]].sum() < 4 < heart[0][rows[0]].sum()
    assert heart[1][:, columns[-1]].sum() < 4 < heart[1][:, columns[0]].sum()


def test_the_last_orientation_repeats_the_first() -> None:
    factors = some_factors(50)
    first, last = factors.copy(), factors.copy()
    first[:, 2], last[:, 2] = 0, 39
    assert np.array_equal(sprites.render(first), sprites.render(last))


def test_splits_are_the_whole_grid_once(mini: ImageSet) -> None:
    assert mini.sizes == {"train": 18_432, "validation": 2304, "test": 2304}
    factors = torch.cat([split.factors for split in mini.splits.values()])
    sizes = mini["train"].factor_sizes
    assert sizes == (3, 3, 10, 16, 16)
    index = np.ravel_multi_index(factors.numpy().T, sizes)
    assert np.array_equal(np.sort(index), np.arange(23_040))
    for split in mini.splits.values():
        assert torch.equal(split.labels, split.factors[:, 0])
    assert (mini.classes[0], mini.spec.support, mini.spec.shape) == ("square", "binary", (1, 64, 64))
    with pytest.raises(UsageError, match="binary"):
        mini.prepare("dynamic")


def test_the_permutation_is_recorded_by_its_seed(mini: ImageSet) -> None:
    assert mini["test"].factors[:3].tolist() == [[1, 2, 2, 2, 5], [1, 2, 3, 10, 9], [0, 2, 3, 4, 6]]
    assert mini.sha256 == "5f82247a941426ffb4a87cfef7769c170492c00ac3c1d1db54b7a1264033ce16"
    other = load_shapes(grid="mini", seed=1, n_test=100)
    assert other.sha256 != mini.sha256 and other.sizes["test"] == 100


def test_observe_draws_what_the_splits_hold(mini: ImageSet) -> None:
    for split in mini.splits.values():
        assert torch.equal(mini.observe(split.factors[:200]), split.pixels[:200])
    full = mini["test"].factors[:50].numpy() * (1, 2, 4, 2, 2)  # every n-th value of the full grid
    assert np.array_equal(sprites.render(full), mini["test"].pixels[:50].numpy())
    for wrong in ([[0, 0, 0, 0, 16]], [[-1, 0, 0, 0, 0]], [[0, 0, 0, 0]]):
        with pytest.raises(ValueError, match="below"):
            mini.observe(np.array(wrong))
    with pytest.raises(UsageError, match="mini"):
        load_shapes(grid="tiny")


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[int, ...]:
    """A dSprites of 96 pictures, kept in a memory map as the full one is."""
    monkeypatch.setattr(shapes, "GRIDS", {"full": (3, 2, 4, 2, 2), "mini": (3, 1, 2, 1, 2)})
    monkeypatch.setattr(grids, "IN_MEMORY", 0)
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VAE_ZOO_DSPRITES", raising=False)
    return shapes.GRIDS["full"]


def write_npz(path: Path, sizes: tuple[int, ...]) -> np.ndarray:
    values = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    pictures = (sprites.render(values)[:, 0] > 0).astype(np.uint8)
    pictures[:, 0, 0] = 1  # so that they can be told from drawn ones
    colour = np.zeros((len(values), 1), np.int64)
    np.savez(path, imgs=pictures, latents_classes=np.hstack([colour, values]))
    return values


def assert_alike_but_for_a_corner(real: ImageSet, drawn: ImageSet, corner: torch.Tensor) -> None:
    for split in ("train", "test"):
        assert torch.equal(real[split].factors, drawn[split].factors)
        pixels = drawn[split].pixels.clone()
        pixels[..., 0, 0] = corner
        assert torch.equal(real[split].pixels, pixels)
        assert torch.equal(real.observe(real[split].factors), pixels)


@pytest.mark.parametrize("grid", ["full", "mini"])
def test_the_original_file_is_read_where_it_is(small_grid, tmp_path: Path, monkeypatch, grid: str) -> None:
    path = tmp_path / "dsprites.npz"
    write_npz(path, small_grid)
    drawn = load_shapes(grid=grid)
    monkeypatch.setenv("VAE_ZOO_DSPRITES", str(path))
    real = load_shapes(grid=grid)
    assert (
        real.name.startswith("dsprites") and drawn.name.startswith("shapes") and real.sha256 != drawn.sha256
    )
    assert_alike_but_for_a_corner(real, drawn, torch.tensor(255, dtype=torch.uint8))
    assert load_shapes(grid=grid).sha256 == real.sha256


def test_a_file_that_is_not_dsprites_is_refused(small_grid, tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    with pytest.raises(UsageError, match="there is no dSprites file"):
        load_shapes(npz=path)
    path.write_bytes(b"not at all")
    with pytest.raises(ZooError, match="damaged, or not"):
        load_shapes(npz=path)
    write_npz(path, small_grid)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ZooError, match="damaged, or not"):
        load_shapes(npz=path)
    values = np.zeros((96, 6), np.int64)
    np.savez(path, imgs=np.zeros((96, 64, 64), np.uint8), latents_classes=values)
    with pytest.raises(ZooError, match="in their order"):
        load_shapes(npz=path)
    assert [p.name for p in (tmp_path / "cache" / "dsprites").iterdir()] == [".lock"]


# -- coloured shapes


@pytest.fixture(scope="module")
def coloured() -> ImageSet:
    return load_shapes3d(grid="mini")


def test_coloured_splits_are_the_whole_grid_once(coloured: ImageSet) -> None:
    assert coloured.sizes == {"train": 8000, "validation": 1000, "test": 1000}
    assert (coloured.spec.shape, coloured.spec.support, coloured.spec.classes) == ((3, 64, 64), "8-bit", 4)
    factors = torch.cat([split.factors for split in coloured.splits.values()]).numpy()
    index = np.ravel_multi_index(factors.T, coloured["train"].factor_sizes)
    assert np.array_equal(np.sort(index), np.arange(10_000))
    test = coloured["test"]
    assert torch.equal(test.labels, test.factors[:, 4])
    assert torch.equal(coloured.observe(test.factors[:100]), test.pixels[:100])
    with pytest.raises(UsageError, match="full, mini"):
        load_shapes3d(grid="all")


def test_coloured_pictures_are_the_same_on_every_machine(coloured: ImageSet) -> None:
    assert coloured.sha256 == "6ea177d7e657b03e552cd105832b24ba12fa8e222074ee90dd6cb94f4206cfd7"


def test_a_picture_does_not_depend_on_those_beside_it() -> None:
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, size, 60) for size in (*room.SIZES[:3], 2, 4, 2)], axis=1)
    whole = room.render(factors)
    alone = np.concatenate([room.render(factors[k : k + 1]) for k in range(60)])
    assert np.array_equal(whole, alone)


@pytest.mark.parametrize("part", ["floor", "wall", "object"])
def test_a_hue_colours_its_own_part_and_nothing_else(part: str) -> None:
    place = ["floor", "wall", "object"].index(part)
    one, other = np.array([[1, 4, 8, 4, 1, 3]]), np.array([[1, 4, 8, 4, 1, 3]])
    other[0, place] = (other[0, place] + 5) % 10
    changed = (room.render(one) != room.render(other))[0].any(0)
    lit = room._light(4, 1, 3)[place].reshape(64, 64) > 0
    assert not changed[~lit].any() and changed[lit].mean() > 0.9
    assert 0.03 < changed.mean() < 0.7


def test_light_is_shared_out_and_geometry_is_what_it_says() -> None:
    for shape in range(4):
        light = room._light(7, shape, 7)
        assert np.array_equal(light, np.rint(light)) and light.min() >= 0 and light.sum(0).max() <= room.UNIT
        areas = [(room._light(scale, shape, 7)[room.OBJECT] > 0).sum() for scale in (0, 4, 7)]
        assert areas[0] < 0.65 * areas[1] < 0.65 * 0.85 * areas[2]
    # What is round all about looks the same from everywhere but for the room and the light; a box does not.
    outline = [room._light(7, shape, turn)[room.OBJECT] > 0 for shape in (0, 1) for turn in (0, 7)]
    assert (outline[2] != outline[3]).sum() <= 2 < 40 < (outline[0] != outline[1]).sum()


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[int, ...]:
    """A 3D Shapes of 192 pictures, kept in a memory map as the full one is, of which a few are read at once."""
    monkeypatch.setattr(shapes3d, "GRIDS", {"full": (2, 2, 2, 2, 4, 3), "mini": (1, 2, 1, 2, 2, 3)})
    monkeypatch.setattr(shapes3d, "BLOCK", 40)
    monkeypatch.setattr(grids, "IN_MEMORY", 0)
    monkeypatch.setattr(grids, "CHUNK", 50)
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VAE_ZOO_SHAPES3D", raising=False)
    return shapes3d.GRIDS["full"]


def write_h5(path: Path, sizes: tuple[int, ...]) -> None:
    index = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    pictures = room.render(index).transpose(0, 2, 3, 1).copy()
    pictures[:, 0, 0] = (1, 2, 3)  # so that they can be told from drawn ones
    values = np.stack([np.linspace(-30, 30, size)[k] for size, k in zip(sizes, index.T)], axis=1)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=pictures, compression="gzip")
        file["labels"] = values


@pytest.mark.parametrize("grid", ["full", "mini"])
def test_the_original_room_is_read_where_it_is(small_room, tmp_path: Path, monkeypatch, grid: str) -> None:
    path = tmp_path / "3dshapes.h5"
    write_h5(path, small_room)
    drawn = load_shapes3d(grid=grid)
    monkeypatch.setenv("VAE_ZOO_SHAPES3D", str(path))
    real = load_shapes3d(grid=grid)
    assert real.name.startswith("3dshapes") and drawn.name.startswith("shapes3d") and real.sha256 != drawn.sha256
    assert_alike_but_for_a_corner(real, drawn, torch.tensor([1, 2, 3], dtype=torch.uint8))
    assert load_shapes3d(grid=grid).sha256 == real.sha256


def test_a_file_that_is_not_3d_shapes_is_refused(small_room, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "other.h5"
    with pytest.raises(UsageError, match="there is no 3D Shapes file"):
        load_shapes3d(h5=path)
    path.write_bytes(b"not at all")
    with pytest.raises(ZooError, match="damaged, or not"):
        load_shapes3d(h5=path)
    write_h5(path, small_room)
    with h5py.File(path, "r+") as file:
        file["labels"][[3, 4]] = file["labels"][:][[4, 3]]
    with pytest.raises(ZooError, match="in their order"):
        load_shapes3d(h5=path)
    write_h5(path, small_room[:-1] + (2,))
    with pytest.raises(ZooError, match="in their order"):
        load_shapes3d(h5=path)
    write_h5(path, small_room)
    content = path.read_bytes()
    at = content.rindex(b"x\xda") if b"x\xda" in content else content.rindex(b"x^")  # where a chunk of pictures begins
    path.write_bytes(content[: at + 8] + bytes(64) + content[at + 72 :])
    with pytest.raises(ZooError, match="is damaged"):
        load_shapes3d(h5=path)
    assert [p.name for p in (tmp_path / "cache" / "3dshapes").iterdir()] == [".lock"]
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ZooError, match="pip install h5py"):
        load_shapes3d(h5=path)


# -- measured strokes


def bar(width: int, length: int, shear: float = 0.0) -> torch.Tensor:
    """An upright bar, each row moved right by ``shear`` a row upwards: uint8 (1, 64, 64)."""
    y, x = np.mgrid[:64, :64]
    left = 32 - width / 2 + shear * (32 - y)
    cover = np.clip(x + 1 - left, 0, 1) - np.clip(x + 1 - left - width, 0, 1)
    return torch.from_numpy(np.rint(255 * cover * (abs(y - 31.5) < length / 2)).astype(np.uint8))[None]


def test_measures_of_a_bar_are_known() -> None:
    pixels = torch.stack([bar(3, 30), bar(6, 30), bar(3, 40), bar(3, 30, 0.5), bar(3, 30, -0.25)])
    thickness, slant, width, height = measure_strokes(pixels).T
    torch.testing.assert_close(
        slant, torch.tensor([0, 0, 0, 0.5, -0.25], dtype=torch.float64), rtol=0, atol=0.01
    )
    assert height[0].item() == pytest.approx(4 * ((30**2 - 1) / 12) ** 0.5)
    assert width[1].item() == pytest.approx(4 * ((6**2 - 1) / 12) ** 0.5)
    assert (
        height[2] > 1.3 * height[0] and abs(width[3] - width[0]) < 0.5
    )  # the slant is taken out of the width
    assert thickness[0].item() == pytest.approx(3 * 30 / 33, rel=0.03)
    assert thickness[1].item() == pytest.approx(6 * 30 / 36, rel=0.03)
    assert torch.equal(
        measure_strokes(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)), torch.zeros(2, 4).double()
    )


def test_stroke_factors_are_equal_bins_of_the_training_split() -> None:
    data = load_synthetic(500, 100, 100)
    with_factors = with_stroke_factors(data)
    train = with_factors["train"]
    assert train.factor_kind == "measured" and train.factor_names == ("class", *MEASURES)
    assert train.factor_sizes == (10,) * 5 and torch.equal(train.factors[:, 0], data["train"].labels)
    measures = measure_strokes(train.pixels)
    for k in range(4):
        assert torch.bincount(train.factors[:, k + 1], minlength=10).tolist() == [50] * 10
        order = measures[:, k].argsort()
        assert (train.factors[order, k + 1].diff() >= 0).all()
    # One set of edges for all splits: a picture of the training split has the same factors in another split.
    moved = ImageSet("moved", {**data.splits, "test": data["train"].subset(40)}, data.spec)
    assert torch.equal(with_stroke_factors(moved)["test"].factors, train.factors[:40])
    assert with_factors.sha256 != data.sha256 and with_factors.name == "synthetic_strokes"
    assert with_factors.prepare("dynamic")["test"].factor_kind == "measured"


def test_strokes_are_measured_on_grey_digits_only() -> None:
    data = load_synthetic(20, 10, 10)
    for wrong in (
        data.prepare("threshold"),
        load_ppca(8, 8, 8),
        load_synthetic(20, 10, 10, shape=(3, 16, 16)),
    ):
        with pytest.raises(UsageError, match="grey 8-bit"):
            with_stroke_factors(wrong)
    with pytest.raises(UsageError, match="already"):
        with_stroke_factors(with_stroke_factors(data))
