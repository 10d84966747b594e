"""UDR: values that are known in closed form, what it ignores, and `zoo rank`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtri
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso

from benchmarks import record
from benchmarks.check.subject import subject
from benchmarks.finished import Finished
from benchmarks.metrics import udr
from benchmarks.metrics.codes import Undefined
from benchmarks.rank import _check_data, _codes, _groups, rank
from tests.test_board import make
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from zoo import list_models, load_run, noise
from zoo.config import RunConfig, resolve
from zoo.data.batches import Batches
from zoo.data.images import Images
from zoo.distributions.gaussians import kl_diagonal
from zoo.errors import UsageError
from zoo.models.vae import VanillaVAE
from zoo.noise import seed_for
from zoo.runs import train_run
from zoo.runs.images import load_images
from zoo.training.precision import choose

#: Variants whose posterior and prior are diagonal Gaussians, as they are by default.
RANKED = {"vae", "beta_vae", "beta_tcvae", "factor_vae", "annealed_vae", "dip_vae", "info_vae", "vae_gan", "iwae"}
RANKED |= {"adversarial_ae", "two_stage_vae", "ada_vae", "ms_ssim_vae", "dfc_vae", "geco_vae", "autoencoder_kl"}
RANKED |= {"s2_beta_vae", "s2_beta_tcvae", "s2_factor_vae", "s2_dip_vae"}
BOTH = pytest.mark.parametrize("similarity", udr.SIMILARITIES)
#: What codes score that agree one with one: the weight of a Lasso is that of least squares less alpha.
MOST = {"lasso": 1 - udr.ALPHA, "spearman": 1.0}


def grid(side: int, dims: int) -> np.ndarray:
    """(side^dims, dims): independent codes, each with the quantiles of a standard normal; uncorrelated to the bit."""
    values = ndtri((np.arange(side) + 0.5) / side)
    return np.stack(np.meshgrid(*[values] * dims, indexing="ij"), -1).reshape(-1, dims)


def normals(n: int, dims: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dims))


def pair(z: np.ndarray, other: np.ndarray, similarity: str, kl=None, kl_other=None) -> float:
    """The UDR of one of two models."""
    rates = [np.ones(part.shape[1]) if one is None else np.asarray(one) for part, one in ((z, kl), (other, kl_other))]
    return float(udr.udr(udr.pairwise([z, other], rates, similarity))[0])


# ---- values in closed form


@BOTH
@settings(max_examples=20)
@given(order=st.permutations(range(3)), signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
def test_codes_that_are_the_same_up_to_order_and_sign_score_the_most(similarity: str, order, signs) -> None:
    z = grid(5, 3)
    assert pair(z, z[:, order] * signs, similarity) == pytest.approx(MOST[similarity], abs=1e-9)


@BOTH
def test_neither_scale_nor_offset_counts(similarity: str) -> None:
    z, other = normals(300, 3), normals(300, 3) @ normals(3, 3, 1)
    moved = other * [1e-9, 3.0, -1e9] + [5.0, -1e6, 0.0]
    assert pair(z, moved, similarity) == pytest.approx(pair(z, other, similarity), abs=1e-8)
    assert pair(moved, z, similarity) == pytest.approx(pair(other, z, similarity), abs=1e-8)


def test_by_ranks_a_monotone_function_of_a_code_is_the_code_itself() -> None:
    z = grid(5, 3)
    bent = np.stack([np.exp(3 * z[:, 2]), -z[:, 0] ** 3, np.arctan(z[:, 1])], 1)
    assert pair(z, bent, "spearman") == pytest.approx(1.0)
    assert pair(z, bent, "lasso") < 0.85


def test_independent_codes_that_are_turned_by_an_eighth_score_what_their_correlations_say() -> None:
    # Each code of either model correlates by 1 / sqrt(2) with both of the other: r^2 / (r + r) = r / 2.
    z = grid(300, 2)
    turned = z @ np.array([[1, -1], [1, 1]]) / math.sqrt(2)
    r = 6 / math.pi * math.asin(0.5 / math.sqrt(2))  # Spearman's, of two Gaussians that correlate by 1 / sqrt(2)
    assert pair(z, turned, "spearman") == pytest.approx(r / 2, abs=1e-3)
    assert pair(z, turned, "lasso") == pytest.approx((1 / math.sqrt(2) - udr.ALPHA) / 2, abs=1e-9)


@settings(max_examples=30)
@given(angle=st.floats(0.0, math.pi))
def test_the_lasso_of_uncorrelated_codes_is_their_correlations_less_alpha(angle: float) -> None:
    z = grid(9, 2)
    cosine, sine = math.cos(angle), math.sin(angle)
    turned = z @ np.array([[cosine, -sine], [sine, cosine]])
    large, small = (max(abs(part) - udr.ALPHA, 0.0) for part in sorted([cosine, sine], key=abs, reverse=True))
    assert pair(z, turned, "lasso") == pytest.approx(large**2 / (large + small), abs=1e-9)


def test_independent_codes_score_what_chance_gives() -> None:
    # Their correlations are N(0, 1 / n), nearly: by ranks the mean of |r| of one code each, of max^2 / sum of two rows
    # and two columns. The Lasso sees none below alpha.
    n, draws = 400, 400
    one = [pair(normals(n, 1, seed), normals(n, 1, seed + draws), "spearman") for seed in range(draws)]
    assert np.mean(one) == pytest.approx(math.sqrt(2 / (math.pi * n)), abs=4 * np.std(one) / math.sqrt(draws))
    share = 4 / math.pi * quad(lambda t: math.cos(t) ** 2 / (math.cos(t) + math.sin(t)), 0, math.pi / 4)[0]
    two = [pair(normals(n, 2, seed), normals(n, 2, seed + draws), "spearman") for seed in range(draws)]
    assert np.mean(two) == pytest.approx(math.sqrt(math.pi / 2 / n) * share, abs=4 * np.std(two) / math.sqrt(draws))
    assert pair(normals(10_000, 10), normals(10_000, 10, 1), "lasso") == 0.0


def test_an_agreement_is_the_mean_over_all_codes_of_the_largest_squared_over_the_sum() -> None:
    similarity = np.array([[0.8, 0.0, 0.2], [0.0, 0.5, 0.5]])
    columns, rows = [0.8, 0.5, 0.25 / 0.7], [0.64, 0.25]
    assert udr.relative_strength(similarity) == pytest.approx(sum(columns + rows) / 5)
    assert udr.relative_strength(similarity.T) == pytest.approx(sum(columns + rows) / 5)
    assert udr.relative_strength(np.eye(4)) == 1.0
    assert udr.relative_strength(np.ones((4, 4))) == pytest.approx(1 / 4)
    assert udr.relative_strength(np.zeros((3, 2))) == 0.0


def test_of_several_models_it_is_the_median_over_the_others() -> None:
    nan = np.nan
    pairs = np.array([[nan, 0.2, 0.6, 0.9], [0.1, nan, 0.5, 0.2], [0.6, 0.4, nan, 0.0], [1.0, 0.0, 0.2, nan]])
    assert udr.udr(pairs).tolist() == [0.6, 0.2, 0.4, 0.2]
    assert udr.udr(pairs[:2, :2]).tolist() == [0.2, 0.1]


def test_each_model_is_told_of_its_own_codes_and_of_each_other_one_by_name() -> None:
    z = grid(5, 3)
    codes, kl = [z, z[:, :2], np.column_stack([z, z[:, 0]])], [np.array([1.0, 0.0, 1.0]), np.ones(2), np.zeros(4)]
    found = udr.agreements(codes, kl, ["a", "b", "c"])
    assert [(one.informative, one.latents, one.images) for one in found] == [(2, 3, 125), (2, 2, 125), (0, 4, 125)]
    for name in udr.SIMILARITIES:
        pairs = udr.pairwise(codes, kl, name)
        for i, one in enumerate(found):
            others = {other: pairs[i, j] for j, other in enumerate("abc") if j != i}
            assert one.pairs[name] == others and one.scores[name] == np.median([*others.values()])


# ---- beside the libraries


def test_ranks_are_correlated_as_scipy_does_ties_included() -> None:
    z, other = normals(200, 3).round(1), (normals(200, 3) + normals(200, 3, 1)).round(0)
    found = udr.correlations(udr.ranked(z), udr.ranked(other))
    expected = [[abs(spearmanr(z[:, a], other[:, b])[0]) for b in range(3)] for a in range(3)]
    assert found == pytest.approx(np.array(expected), abs=1e-12)


def test_the_lasso_is_scikit_learn_s_and_predicts_the_row_s_model_from_the_column_s() -> None:
    other = udr.standardised(normals(500, 4) @ normals(4, 4, 1))
    z = udr.standardised(other[:, :3] + 0.3 * normals(500, 3, 2))
    weights = np.abs(Lasso(alpha=0.1, tol=1e-12, max_iter=100_000).fit(other, z).coef_)
    assert weights.shape == (3, 4)
    assert udr.lasso_weights(z, other) == pytest.approx(weights, abs=1e-6)
    pairs = udr.pairwise([z, other], [np.ones(3), np.ones(4)], "lasso")
    assert pairs[0, 1] == pytest.approx(udr.relative_strength(weights), abs=1e-6)
    assert pairs[1, 0] != pytest.approx(pairs[0, 1], abs=1e-3)


def test_standardised_codes_have_mean_0_and_deviation_1_and_constant_ones_are_0() -> None:
    z = np.stack([normals(50, 1)[:, 0] * 1e-150, np.full(50, 0.1), normals(50, 1, 1)[:, 0] + 1e6], 1)
    found = udr.standardised(z)
    assert found.mean(0) == pytest.approx(0, abs=1e-9)
    assert found.std(0) == pytest.approx([1, 0, 1]) and not found[:, 1].any()
    assert udr.standardised(np.float32(z)).dtype == np.float64


# ---- what it does not depend on, and what it ignores


@BOTH
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), dims=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_it_is_between_0_and_1_and_the_order_of_images_and_codes_does_not_matter(similarity: str, seed, dims) -> None:
    random = np.random.default_rng(seed)
    z = random.standard_normal((60, dims[0]))
    shared = np.concatenate([z, random.standard_normal((60, 4))], 1)[:, -dims[1] :]
    other = shared + 0.3 * random.standard_normal((60, 1))
    value, images = pair(z, other, similarity), random.permutation(60)
    assert 0 <= value <= 1
    assert pair(z[images], other[images], similarity) == pytest.approx(value, abs=1e-6)
    shuffled = other[:, random.permutation(dims[1])], z[:, random.permutation(dims[0])]
    assert pair(shuffled[1], shuffled[0], similarity) == pytest.approx(value, abs=1e-6)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_by_ranks_two_models_have_the_same_udr_of_each_other(seed: int) -> None:
    z, mixing = normals(80, 3, seed), normals(3, 2, seed + 1)
    pairs = udr.pairwise([z, z @ mixing + 0.1 * normals(80, 2, seed + 2)], [np.ones(3), np.ones(2)], "spearman")
    assert pairs[0, 1] == pytest.approx(pairs[1, 0], abs=1e-12)


def test_so_they_have_by_the_lasso_where_the_codes_of_each_are_uncorrelated() -> None:
    z = grid(7, 3)
    turned = z @ np.linalg.qr(normals(3, 3))[0]
    pairs = udr.pairwise([z, turned], [np.ones(3)] * 2, "lasso")
    assert pairs[0, 1] == pytest.approx(pairs[1, 0], abs=1e-9) and 0.1 < pairs[0, 1] < 0.8


@BOTH
def test_uninformative_codes_are_ignored_however_they_correlate(similarity: str) -> None:
    z, other = grid(5, 3), grid(5, 3)[:, [2, 0, 1]]
    copies, threshold = z[:, :2] + 0.1 * normals(len(z), 2), [1.0, 1.0, 1.0, udr.INFORMATIVE, 0.0]
    more, others = np.concatenate([z, copies], 1), np.concatenate([other, copies], 1)
    assert pair(more, others, similarity, threshold, threshold) == pytest.approx(MOST[similarity], abs=1e-9)
    assert pair(more, other, similarity, threshold) == pytest.approx(MOST[similarity], abs=1e-9)
    assert pair(other, more, similarity, None, threshold) == pytest.approx(MOST[similarity], abs=1e-9)
    just = [1.0, 1.0, 1.0, udr.INFORMATIVE * (1 + 1e-9), 0.0]
    assert pair(more, other, similarity, just) < MOST[similarity] - 0.05


@BOTH
def test_without_an_informative_code_in_either_or_in_both_models_it_is_0(similarity: str) -> None:
    z, none = grid(5, 2), [0.0, 0.01]
    assert pair(z, z, similarity, none, none) == 0.0
    assert pair(z, z, similarity, none) == pair(z, z, similarity, None, none) == 0.0


@BOTH
def test_an_informative_code_that_is_constant_agrees_with_none_and_counts(similarity: str) -> None:
    z = grid(5, 2)
    more = np.concatenate([z, np.full((len(z), 1), 0.1)], 1)
    assert pair(more, z, similarity) == pytest.approx(MOST[similarity] * 4 / 5, abs=1e-9)


def test_an_informative_code_without_a_counterpart_counts_once_among_all_codes() -> None:
    z = grid(5, 3)
    assert pair(z, z[:, :1], "lasso") == pytest.approx(0.9 * 2 / 4, abs=1e-9)  # of the reference's two means: 0.6


# ---- what is refused


def test_what_cannot_be_compared_is_refused_in_a_sentence() -> None:
    z, one = normals(10, 2), np.ones(2)
    for codes, kl, said in (
        ([z], [one], "UDR compares a model with others, and here is 1"),
        ([z, z[:9]], [one, one], "a has codes of 10 images and b of 9; UDR needs those of the same images"),
        ([z, z], [one, np.ones(3)], r"the KL of b has shape \(3,\); it must be \(2,\) and finite"),
        ([z, z], [one, one * np.nan], "the KL of b has shape .* finite"),
        ([z, z], [one, one * [3.0, -0.011]], "the KL of b is -0.011 nats in code 1, and no KL is negative"),
        ([z, z * np.inf], [one, one], "the code of b has 20 value"),
        ([z, z[:, 0]], [one, one], "the code of b has shape"),
    ):
        with pytest.raises(UsageError, match=said):
            udr.pairwise(codes, kl, names=["a", "b"][: len(codes)])
    with pytest.raises(Undefined, match="at least two images, and these are of 1"):
        udr.pairwise([z[:1], z[:1]], [one, one])
    # What sampling leaves of a KL of 0 is no mistake, and no information.
    assert pair(z, z, "lasso", [1.0, -0.009], [1.0, 0.0]) == pair(z, z, "lasso", [1.0, 0.0], [1.0, 0.0]) > 0


# ---- `zoo rank`

SMALL = ["train.epochs=1", "encoder.hidden=[16]", "decoder.hidden=[16]", "latent=3"]
WIDE = [*SMALL, "latent=4"]


def config(variant: str = "vae", seed: int = 0, words: tuple[str, ...] | list[str] = SMALL) -> RunConfig:
    return resolve(variant, "synthetic", seed, settings=list(words))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, compute = tmp_path_factory.mktemp("runs"), choose("cpu")
    for seed in range(3):
        train_run(config(seed=seed), folder / f"vae-{seed}", compute)
    for seed in range(2):
        train_run(config(seed=seed, words=WIDE), folder / f"wide-{seed}", compute)
        train_run(config("cvae", seed), folder / f"cvae-{seed}", compute)
        vamp = [*SMALL, "prior.name=vamp", "prior.components=4"]
        train_run(config(seed=seed, words=vamp), folder / f"vamp-{seed}", compute)
    train_run(config(words=[*SMALL, "data.binarise=threshold"]), folder / "other", compute)
    train_run(config(words=[*SMALL, "data.dequantise=uniform"]), folder / "noisy", compute)
    return folder


def measured(run: Path, seed: int, mig: float, status: str = "done", **identity: int) -> None:
    """A record of a run, with its MIG."""
    cell, number = config(seed=seed).identity(), (mig, None, {"identity": {"n_train": 10, **identity}})
    how = {"status": status, "reason": "" if status == "done" else "out of memory"}
    made = make("vae", seed, numbers={"mig": number}, config=cell, cell__key=record.cell_key(cell), **how)
    (run / "record.json").write_text(record.dump(made))


def test_runs_are_ranked_beside_the_other_seeds_of_their_settings(zoo, runs: Path) -> None:  # noqa: F811
    vae, wide = [runs / f"vae-{seed}" for seed in range(3)], [runs / f"wide-{seed}" for seed in range(2)]
    code, out, err = zoo("rank", *map(str, [*vae, *wide]), "--n", "200", "--json", "--device", "cpu")
    assert code == 0, err
    rows = {row["run"]: row for row in json.loads(out)}
    scores = [row["udr_lasso"] for row in rows.values()]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 5

    split = load_images(config())["test"]
    x = split.pixels[torch.randperm(len(split), generator=torch.Generator().manual_seed(seed_for(0, "images")))[:200]]
    for group in (vae, wide):
        codes, kl = [], []
        for run in group:
            q = load_run(run).infer(x.float() / 255)
            codes.append(q.mean.detach().numpy())
            zero = torch.zeros_like(q.mean)
            kl.append(kl_diagonal(q.mean, q.log_variance, zero, zero).mean(0).detach().numpy())
        for name in udr.SIMILARITIES:
            pairs = udr.pairwise(codes, kl, name)
            expected = udr.udr(pairs)
            for i, run in enumerate(group):
                row = rows[str(run)]
                assert row[f"udr_{name}"] == pytest.approx(expected[i], abs=1e-4)
                assert list(row["pairs"][name]) == [str(other) for other in group if other != run]
                others = [value for j, value in enumerate(pairs[i]) if j != i]
                assert list(row["pairs"][name].values()) == pytest.approx(others, abs=1e-4)
                assert row["informative"] == int((kl[i] > 0.01).sum())
    ours = rows[str(wide[0])]
    assert (ours["variant"], ours["seed"], ours["dataset"], ours["mig"]) == ("vae", 0, "synthetic", None)
    assert ours["identity"] == {
        "split": "test", "n": 200, "seed": 0, "latents": 4, "others": 1, "informative_above": 0.01, "alpha": 0.1,
    }  # fmt: skip


def test_the_table_has_the_mig_of_the_records_there_are(zoo, runs: Path) -> None:  # noqa: F811
    words = ("rank", *(str(runs / f"vae-{seed}") for seed in range(3)), "--device", "cpu")
    code, out, err = zoo(*words)
    assert code == 0 and "MIG" not in out, err
    assert out.startswith("synthetic  256 test images\n")
    head, _, *rows = out.splitlines()[1:6]
    assert head.startswith("run ") and len(rows) == 3
    assert all(" of 3 " in row and row.endswith(" 2") for row in rows)
    try:
        measured(runs / "vae-0", 0, 0.125)
        measured(runs / "vae-1", 1, 0.25, latents=9)
        measured(runs / "vae-2", 2, 0.5, status="failed")
        one = zoo(*words)[1]
        measured(runs / "vae-2", 2, 0.5, latents=9)
        of_most = zoo(*words)[1]
        found = {row["run"][-1]: row["mig"] for row in json.loads(zoo(*words, "--json")[1])}
        ranked = [row["run"][-1] for row in json.loads(zoo(*words, "--json")[1])]
        for mig, seed in zip((0.2, 0.9, 0.5), map(int, ranked), strict=True):
            measured(runs / f"vae-{seed}", seed, mig)
        of_all = zoo(*words)[1]
    finally:
        for path in runs.glob("vae-*/record.json"):
            path.unlink()

    def last(table: str) -> dict[str, str]:
        lines = [line for line in table.splitlines() if "vae-" in line]
        return {line.split("  ")[0][-1]: line.rpartition("  ")[2] for line in lines}

    assert last(one)["2"] == "no record" and sorted([last(one)["0"], last(one)["1"]])[1] == "other"
    assert last(of_most) == {"0": "other", "1": "0.2500", "2": "0.5000"}
    assert "\nother: " in of_most
    assert {run: mig["value"] for run, mig in found.items()} == {"0": 0.125, "1": 0.25, "2": 0.5}
    assert found["1"]["identity"] == {"n_train": 10, "latents": 9}
    # By UDR 1, 2, 3, by MIG 3, 1, 2: 1 - 6 (4 + 1 + 1) / (3 (9 - 1)).
    assert "correlation of UDR with MIG over 3 runs: -0.50 (Lasso), " in of_all
    assert "correlation" not in one + of_most


def test_the_order_of_the_runs_and_the_rows_of_a_batch_do_not_matter(runs: Path) -> None:
    folders = [runs / f"vae-{seed}" for seed in range(3)]
    first, second = (rank(some, 256, "cpu") for some in (folders, folders[::-1]))
    assert [one.folder for one in first] == [one.folder for one in second]
    for a, b in zip(first, second, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-9)


def test_runs_of_another_training_are_no_seeds_of_each_other() -> None:
    longer, measured_otherwise = [*SMALL, "train.epochs=2"], [*SMALL, "evaluate.seed=3"]
    kinds = {"a": (0, SMALL), "b": (1, SMALL), "c": (0, longer), "d": (1, longer), "e": (2, measured_otherwise)}
    described = {Path(name): SimpleNamespace(config=config("vae", *kind)) for name, kind in kinds.items()}
    names = [[folder.name for folder in group] for group in _groups(list(described), described)]
    assert names == [["a", "b", "e"], ["c", "d"]]


def test_runs_on_other_images_of_the_same_name_are_refused() -> None:
    def described(sha: str) -> SimpleNamespace:
        return SimpleNamespace(config=config(), data_sha256=sha)

    _check_data({Path("a"): described("1"), Path("b"): described("1")})
    with pytest.raises(UsageError, match="a and c are on different data .* their codes are of other images"):
        _check_data({Path("a"): described("1"), Path("b"): described("1"), Path("c"): described("2")})


def test_what_cannot_be_ranked_is_refused_in_a_sentence(zoo, runs: Path) -> None:  # noqa: F811
    for words, said in (
        (("vae-0",), "a run is ranked beside other seeds of its settings: give two runs at least."),
        (("vae-0", "vae-0"), "are the same run: vae, seed 0."),
        (("vae-0", "vae-1", "wide-1"), "wide-1 (vae, seed 1) is the only run of its settings here"),
        (("vae-0", "other"), "are on different data (synthetic, dynamic and synthetic, threshold)"),
        (("vae-0", "noisy"), "are on different data (synthetic, dynamic and synthetic, none, dequantised)"),
        (("cvae-0", "cvae-1"), "cvae-0 has no code of the image alone: cvae is conditional."),
        (("vamp-0", "vamp-1"), "vamp-0 has no KL by dimension"),
        (("vae-0", "none"), "none is not a run"),
    ):
        code, out, err = zoo("rank", *(str(runs / name) for name in words), "--device", "cpu")
        assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err
    assert zoo("rank", str(runs / "vae-0"), str(runs / "vae-1"), "--n", "1")[0] == 2
    assert zoo("rank")[0] == 2


def written(runs: Path, folder: Path, names: list[str], **more: np.ndarray) -> list[str]:
    """Files of the codes and rates of runs, as somebody would write them who has no runs of ours."""
    for name in names:
        z, kl = _codes(Finished(runs / name, "cpu"), 256)
        np.savez(folder / f"{name}.npz", z_test=z, kl=kl, **more)
    return [str(folder / f"{name}.npz") for name in names]


def test_files_of_codes_have_the_udr_of_their_runs(zoo, runs: Path, tmp_path: Path) -> None:  # noqa: F811
    names = [f"vae-{seed}" for seed in range(3)]
    files = written(runs, tmp_path, names)
    code, out, err = zoo("score", *files, "--json")
    assert code == 0, err
    expected = {one.folder.name: one for one in rank([runs / name for name in names], 256, "cpu")}
    found = json.loads(out)
    assert [Path(row["file"]).stem for row in found] == list(expected)
    for row, one in zip(found, expected.values(), strict=True):
        assert {name: row[f"udr_{name}"] for name in udr.SIMILARITIES} == one.scores
        assert row["identity"] == {key: value for key, value in one.identity().items() if key not in ("split", "seed")}
        assert (row["informative"], row["identity"]["others"], row["scores"]) == (one.informative, 2, {})
        assert {Path(file).stem: value for file, value in row["pairs"]["lasso"].items()} == {
            Path(folder).name: value for folder, value in one.pairs["lasso"].items()
        }
    code, out, _ = zoo("score", *(Path(file).name for file in files))
    assert code == 0 and out.startswith("256 images\nfile") and "UDR (Lasso)" in out and "vae-2.npz" in out


def test_files_of_codes_with_factors_have_the_scores_that_are_asked_for_beside_it(
    zoo, tmp_path: Path  # noqa: F811
) -> None:
    random = np.random.RandomState(0)
    factors = random.randint(0, 4, (600, 2))
    codes = factors + 0.01 * random.randn(600, 2)
    for seed in range(2):  # the other has them in another order, and with other signs
        z = np.column_stack([(1 - 2 * seed) * codes[:, :: 1 - 2 * seed], random.randn(600)])
        arrays = {"z_train": z[:400], "factors_train": factors[:400], "z_test": z[400:], "factors_test": factors[400:]}
        np.savez(tmp_path / f"{seed}.npz", **arrays, kl=[1.0, 1.0, 0.0])
    np.savez(tmp_path / "other.npz", **arrays | {"factors_test": factors[400:, ::-1]}, kl=[1.0, 1.0, 0.0])
    files = [str(tmp_path / f"{seed}.npz") for seed in range(2)]
    found = json.loads(zoo("score", *files, "--metrics", "mig,sap_continuous", "--json")[1])
    by_chance = abs(spearmanr(*codes[400:].T).statistic)
    for row in found:
        assert row["udr_spearman"] == pytest.approx(1 / (1 + by_chance)) and row["informative"] == 2
        (alone,) = [json.loads(zoo("score", row["file"], "--metrics", "mig,sap_continuous", "--json")[1])]
        assert row["scores"] == alone and alone["mig"] > 0.9
    code, out, _ = zoo("score", "0.npz", "1.npz", "--metrics", "mig,sap_continuous")
    assert code == 0 and "others" in out and "mig  sap_continuous" in out
    assert json.loads(zoo("score", files[0], "--metrics", "mig", "--json")[1]).keys() == {"mig"}
    code, out, err = zoo("score", files[0], str(tmp_path / "other.npz"))
    assert (code, out) == (2, "") and "are of other images: their factors_test differ" in err


def test_files_that_have_no_udr_are_refused_in_a_sentence(zoo, runs: Path, tmp_path: Path) -> None:  # noqa: F811
    a, b = written(runs, tmp_path, ["vae-0", "vae-1"])
    z, kl = normals(20, 3), np.ones(3)
    np.savez(tmp_path / "fewer.npz", z_test=z, kl=kl)
    np.savez(tmp_path / "rateless.npz", z_test=z)
    np.savez(tmp_path / "wrong.npz", z_test=normals(256, 3), kl=np.ones(2))
    np.savez(tmp_path / "negative.npz", z_test=normals(256, 3), kl=[-1.0, -2.5, 0.0])
    for words, said in (
        ((a, a), "is given twice"),
        ((a, str(tmp_path / "vae-1.npz"), str(tmp_path / "." / "vae-1.npz")), "is given twice"),
        ((a, str(tmp_path / "fewer.npz")), "UDR needs those of the same images"),
        ((a, str(tmp_path / "rateless.npz")), "has no array kl; it needs z_test, kl"),
        ((a, str(tmp_path / "wrong.npz")), "it must be (3,) and finite"),
        ((a, str(tmp_path / "negative.npz")), "negative.npz is -2.5 nats in code 1, and no KL is negative"),
        ((a, b, "--metrics", "mig"), "has no array z_train, factors_train, factors_test"),
        ((a, "none.npz"), "no file none.npz"),
        ((), "FILES"),
    ):
        code, out, err = zoo("score", *words)
        assert (code, out) == (2, "") and said in err, err


@pytest.mark.parametrize("name", list_models())
def test_the_codes_are_those_of_the_other_metrics_and_their_kl_adds_up_to_the_rate_or_there_is_none(name: str) -> None:
    model, (x, _) = subject(name).known(), subject(name).batch(24)
    shown = Batches(Images((x * 255).to(torch.uint8)), batch_size=7, drop_last=False)
    described = SimpleNamespace(config=SimpleNamespace(variant=name))
    run = SimpleNamespace(model=model, folder=Path("here"), described=described, test=lambda n, seed: shown)
    try:
        z, kl = _codes(run, 24)
    except UsageError as error:
        assert str(error).startswith("here has no ") and name not in RANKED
        return
    assert name in RANKED
    with torch.no_grad(), noise.keyed(0, torch.arange(24)):
        assert z == pytest.approx(model.represent(x).numpy(), abs=1e-5)
        # The second stage of a two-stage VAE is no part of q(z | x): the codes are those of a VAE under N(0, I).
        terms = VanillaVAE.terms(model, x) if name == "two_stage_vae" else model.terms(x)
        rate = terms.rate.sum(1).mean()
    assert kl.shape == z.shape[1:] and kl.sum() == pytest.approx(float(rate), rel=1e-4)
