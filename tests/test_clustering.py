"""Clusters of codes beside the classes of their images: what is known of groups, by hand and in closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks.evaluate import Evaluation, _codes
from benchmarks.evaluation import clustering, representation
from benchmarks.evaluation.clustering import CHOICES, CLUSTERS, WIDEST, clustered
from benchmarks.evaluation.representation import batches_of, chosen
from benchmarks.metrics import clusters, likelihood
from benchmarks.metrics.clusters import agreement, k_means, k_means_identity
from benchmarks.metrics.codes import Undefined
from benchmarks.running.amend import ADDABLE, _measured
from zoo.config import resolve
from zoo.runs import Run, train_run
from zoo.training.precision import choose

CHEAP = ["train.epochs=0", "evaluate.quality_samples=0", "evaluate.nll_samples=0", "evaluate.latent=no",
         "train.batch_size=32", "data.options.n_train=40", "data.options.n_test=60"]  # fmt: skip
ASKED = "evaluate.clustering=yes"


def blobs(n: int, apart: float = 20.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four classes of codes in three dimensions, ``apart`` deviations from each other."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, n)
    centres = apart * np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]])
    return centres[y] + random.normal(size=(n, 3)), 3 * y + 1


def run(folder: Path, variant: str = "vae", *settings: str) -> Run:
    """An untrained run."""
    return train_run(resolve(variant, "synthetic", settings=[*CHEAP, ASKED, *settings]), folder / "run", choose("cpu"))


def measured(made: Run) -> tuple[dict, dict]:
    batches = batches_of(made, made.images["test"])
    return clustered(made, batches, likelihood.codes(made.model.eval(), batches))


# ---- groups and classes ----------------------------------------------------------------------------------------------


def test_groups_that_are_the_classes_agree_wholly_whatever_they_are_called() -> None:
    y = np.array([5, 5, 2, 2, 2, 9, 9])
    for groups in (y, np.array([1, 1, 0, 0, 0, 7, 7]), np.array([0, 0, 1, 1, 1, -3, -3])):
        found = agreement(groups, y)
        assert found.right.tolist() == [1.0] * 7 and (found.nmi, found.ari) == pytest.approx((1, 1))


def test_a_table_by_hand() -> None:
    # Of group and class: 3 1 | 1 2. The best matching is the diagonal, 5 of 7.
    groups, y = [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 1, 1]
    found = agreement(groups, y)
    assert found.right.tolist() == [1, 1, 1, 0, 0, 1, 1]
    # Pairs together in both 4, in groups 9, in classes 9, of 21: (4 - 81 / 21) / (9 - 81 / 21).
    assert found.ari == pytest.approx((4 - 81 / 21) / (9 - 81 / 21))
    entropy = -(4 * np.log(4 / 7) + 3 * np.log(3 / 7)) / 7  # of either
    information = (3 * np.log(21 / 16) + 2 * np.log(7 / 12) + 2 * np.log(14 / 9)) / 7
    assert found.nmi == pytest.approx(information / entropy)


def test_information_is_over_the_arithmetic_mean_of_the_entropies() -> None:
    # Groups split each class in two: I = H(class) = log 2, H(group) = log 4.
    assert agreement([0, 1, 2, 3], [0, 0, 1, 1]).nmi == pytest.approx(2 / 3)


def test_the_matching_is_the_best_of_all_and_not_that_of_the_largest_entry() -> None:
    # 5 4 | 4 0: the largest entry takes 5 and leaves 0, and the best is 4 + 4.
    groups, y = [0] * 9 + [1] * 4, [0] * 5 + [1] * 4 + [0] * 4
    assert agreement(groups, y).right.sum() == 8


def test_more_groups_than_classes_gain_nothing_and_fewer_leave_classes_out() -> None:
    y = np.arange(40) % 4
    assert agreement(np.arange(40), y).right.mean() == 4 / 40
    assert agreement(2 * y + (np.arange(40) >= 20), y).right.mean() == 0.5
    assert agreement(y // 2, y).right.mean() == 0.5
    assert agreement(np.zeros(40), y)[1:] == pytest.approx((0, 0))


def test_groups_by_chance_agree_by_none() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 5, 4000)
    found = agreement(random.integers(0, 5, 4000), y)
    assert abs(found.ari) < 0.005 and found.nmi < 0.01 and 0.2 <= found.right.mean() < 0.25


@pytest.mark.parametrize(
    ("groups", "y", "said"), [([0, 1], [3, 3], "all of one class"), ([0, 1, 1], [0, 1], r"not \(3,\) and \(2,\)")]
)
def test_groups_that_nothing_can_be_said_of(groups: list[int], y: list[int], said: str) -> None:
    with pytest.raises(Undefined, match=said):
        agreement(groups, y)


# ---- k-means ---------------------------------------------------------------------------------------------------------


def test_codes_that_lie_apart_by_class_are_their_classes() -> None:
    z, y = blobs(200)
    found = agreement(k_means(z, 4), y)
    assert found.right.mean() == 1 and (found.nmi, found.ari) == pytest.approx((1, 1))


def test_codes_that_know_nothing_of_the_class_agree_by_none() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 2000)
    found = agreement(k_means(random.normal(size=(2000, 3)), 4), y)
    assert abs(found.ari) < 0.01 and found.right.mean() < 0.32


def test_a_dimension_counts_by_its_scale() -> None:
    z, y = blobs(200)
    noise = 1e3 * np.random.default_rng(1).normal(size=(200, 1))
    assert agreement(k_means(np.column_stack([z, noise]), 4), y).ari < 0.1
    assert agreement(k_means(np.column_stack([z, noise / 1e6]), 4), y).ari == pytest.approx(1)


def test_the_best_of_many_beginnings_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    centres = 20 * random.normal(size=(15, 2))
    z = centres[random.integers(0, 15, 200)] + random.normal(size=(200, 2))

    def squares(groups: np.ndarray) -> float:
        return sum(((z[groups == g] - z[groups == g].mean(0)) ** 2).sum() for g in range(15))

    many = [squares(k_means(z, 15, seed)) for seed in range(3)]
    monkeypatch.setattr(clusters, "RESTARTS", 1)
    alone = [squares(k_means(z, 15, seed)) for seed in range(8)]
    assert max(many) <= min(alone) * (1 + 1e-9) and max(alone) > 1.05 * max(many)


def test_the_same_codes_give_the_same_clusters_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    z = np.random.default_rng(4).normal(size=(300, 5))
    threads, fit = [], KMeans.fit_predict

    def watched(self: KMeans, codes: np.ndarray) -> np.ndarray:
        assert codes.dtype == np.float64
        threads.append({pool["num_threads"] for pool in threadpool_info()})
        return fit(self, codes)

    monkeypatch.setattr(KMeans, "fit_predict", watched)
    first = k_means(z.astype(np.float32), 6)
    with threadpool_limits(limits=2):
        again = k_means(z.astype(np.float32), 6)
    assert np.array_equal(first, again) and threads == [{1}, {1}]
    assert not np.array_equal(first, k_means(z, 6, seed=1))


@pytest.mark.parametrize(
    ("z", "said"),
    [
        (np.ones((9, 2)), "every dimension of the code is constant"),
        (np.repeat([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], 9, 0), "3 different codes do not make 4 clusters"),
        (np.full((9, 2), np.nan), "the codes are not finite"),
        (np.ones(9), r"not \(9,\)"),
    ],
)
def test_codes_that_make_no_clusters(z: np.ndarray, said: str) -> None:
    with pytest.raises(Undefined, match=said):
        k_means(z, 4)


# ---- of a run --------------------------------------------------------------------------------------------------------


def test_as_many_clusters_as_classes_of_the_codes_whose_class_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(representation, "TEST_CODES", 40)
    made = run(tmp_path, "vae", "evaluate.seed=3")
    labels = made.images["test"].labels.clone()
    labels[::7] = -1
    labels[labels == 4] = 5
    shown = replace(made.images["test"], labels=labels)
    made.images = replace(made.images, splits=made.images.splits | {"test": shown}, known_sha256=None)
    metrics, skipped = measured(made)
    assert metrics.keys() == set(CLUSTERS) and skipped == dict.fromkeys(CHOICES, "needs a categorical variable")
    known = (labels >= 0).nonzero().squeeze(1)
    kept = known[chosen(len(known), 40, 3)]
    assert len(kept) == 40 < len(known)
    codes = likelihood.codes(made.model, batches_of(made, made.images["test"]))
    k = len(labels[kept].unique())
    assert k <= 9
    expected = agreement(k_means(codes[kept], k, 3), labels[kept])
    for name, value in zip(CLUSTERS, (expected.right.mean(), expected.nmi, expected.ari), strict=True):
        one = metrics[name]
        assert one["value"] == pytest.approx(value) and (one["stderr"], one["n"], one["better"]) == (None, 40, "higher")
        assert one["identity"].items() >= ({"split": "test", "clusters": k, "seed": 3} | k_means_identity()).items()
    assert metrics["cluster_nmi"]["identity"]["over"] == "arithmetic mean of entropies"
    assert "over" not in metrics["cluster_ari"]["identity"]


@pytest.mark.parametrize(("variant", "size"), [("categorical_vae", "latent"), ("joint_vae", "variables")])
def test_what_a_model_chooses_itself_is_a_clustering_where_it_chooses_once(
    variant: str, size: str, tmp_path: Path
) -> None:
    made = run(tmp_path, variant, f"{size}=1", "classes=13")
    metrics, skipped = measured(made)
    assert metrics.keys() == {*CLUSTERS, *CHOICES} and not skipped
    ((_, x, _),) = batches_of(made, made.images["test"]).sequential()
    groups = made.model.categorical_posterior(x)[:, 0].argmax(1)
    expected = agreement(groups, made.images["test"].labels)
    for name, value in zip(CHOICES, (expected.right.mean(), expected.nmi, expected.ari), strict=True):
        assert metrics[name]["value"] == pytest.approx(value) and metrics[name]["n"] == 60
        assert metrics[name]["identity"].items() >= {"split": "test", "clusters": 13}.items()
        assert "seed" not in metrics[name]["identity"]
    p = expected.right.mean()
    assert metrics["choice_accuracy"]["stderr"] == pytest.approx((p * (1 - p) / 59) ** 0.5)
    assert metrics["choice_nmi"]["stderr"] is metrics["choice_ari"]["stderr"] is None


@pytest.mark.parametrize(
    ("variant", "settings", "said"),
    [
        ("joint_vae", ["variables=3"], "its code has 3 categorical variables, and no one of them is the group"),
        ("m2", [], "its training is told classes, so that what it chooses is no clustering"),
    ],
)
def test_a_choice_of_several_or_of_a_model_that_was_told_is_none(
    variant: str, settings: list[str], said: str, tmp_path: Path
) -> None:
    metrics, skipped = measured(run(tmp_path, variant, *settings))
    assert metrics.keys() == set(CLUSTERS) and skipped == dict.fromkeys(CHOICES, said)


def test_what_keeps_codes_from_clusters_keeps_no_choice_from_being_one(tmp_path: Path) -> None:
    made = run(tmp_path, "joint_vae", "variables=1")
    batches = batches_of(made, made.images["test"])
    for codes, said in (
        (torch.zeros(60, WIDEST + 1), f"its codes have {WIDEST + 1} dimensions; {WIDEST} is the most"),
        (torch.zeros(60, 2), "every dimension of the code is constant"),
    ):
        metrics, skipped = clustered(made, batches, codes)
        assert metrics.keys() == set(CHOICES) and skipped == dict.fromkeys(CLUSTERS, said)


def test_nobody_is_measured_so_who_is_not_asked_or_has_no_classes() -> None:
    asked, labels = SimpleNamespace(clustering=True, split="test"), torch.tensor([-1, -1])
    image_alone = SimpleNamespace(conditional=False)
    for config, model, shown, said in (
        (SimpleNamespace(clustering=False, split="test"), image_alone, labels + 2, "evaluate.clustering is no"),
        (asked, image_alone, None, "needs classes"),
        (asked, SimpleNamespace(conditional=True), labels + 2, representation.CONDITIONED),
        (asked, image_alone, labels, "no image of the test split shows its class"),
        (asked, image_alone, labels + torch.tensor([0, 1]), None),
    ):
        assert clustering.lacking(config, model, {"test": SimpleNamespace(labels=shown)}) == said


def test_an_evaluation_and_a_finished_cell_are_given_the_same(tmp_path: Path) -> None:
    made = run(tmp_path, "vae", "evaluate.clustering=no")
    batches, before, after = batches_of(made, made.images["test"]), Evaluation(), Evaluation()
    _codes(before, made, batches)
    assert {before.skipped[name] for name in (*CLUSTERS, *CHOICES)} == {"evaluate.clustering is no"}
    asked = made.config.evaluate.model_copy(update=ADDABLE["clusters"].asked)
    made.config = made.config.model_copy(update={"evaluate": asked})
    _codes(after, made, batches)
    added = _measured(made, "clusters", tmp_path, tmp_path)
    assert added.metrics.keys() == set(CLUSTERS) >= {ADDABLE["clusters"].signs[0]}
    assert added.metrics.items() <= after.metrics.items() and added.skipped.items() <= after.skipped.items()
    assert (added.metrics, added.skipped) == measured(made)
