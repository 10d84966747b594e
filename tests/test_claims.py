"""What pages say in passing of the records, of the variants and of the settings is what these are.

A claim is a pattern on one page and what its groups have to be. Tables and whole sections have tests of their own.
"""

from __future__ import annotations

import functools
import json
import math
import re
import statistics
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch

from benchmarks import per_example, record
from benchmarks.check.subject import DIGITS, subject
from benchmarks.matrix import plan
from benchmarks.metrics.annealed import Noise
from benchmarks.metrics.disentanglement import choose
from benchmarks.metrics.likelihood import ACTIVE_VARIANCE
from benchmarks.record import Record
from benchmarks.report.against import Difference, against
from benchmarks.report.notation import plus_minus
from benchmarks.suite import suite_named
from tests.conftest import ROOT
from tests.test_docs import in_a_line
from zoo.coding import why_not
from zoo.config import NEUTRAL
from zoo.errors import UsageError
from zoo.likelihoods import LIKELIHOODS
from zoo.models.base import VAE
from zoo.models.quantised import QuantisedVAE
from zoo.posteriors import FLOWS, PosteriorSettings
from zoo.priors import PRIORS
from zoo.registry import registry

RECORDS = ROOT / "leaderboard" / "records"
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def said(page: str, pattern: str) -> tuple[str, ...]:
    """The groups of the one place on a page that the pattern is of."""
    (found,) = re.finditer(pattern, in_a_line(ROOT / page))
    return found.groups()


# ---- of the records -------------------------------------------------------------------------------------------------


@functools.cache
def committed(group: str) -> list[Record]:
    return [record.read(path) for path in sorted((RECORDS / group).glob("*.json"))]


def values(group: str, variant: str, metric: str, part: str = "value") -> list[float]:
    """Of the runs of a variant, the first seed first."""
    of = sorted((one.cell.seed, one) for one in committed(group) if one.cell.variant == variant)
    return [getattr(one.metrics[metric], part) for _, one in of]


def each(one: Record, metric: str) -> np.ndarray:
    return per_example.read(one, RECORDS)[metric]


def lost_run() -> tuple[str, ...]:
    found = sorted(values("mnist@1", "vae_gan", "fd_digits"))
    return tuple(f"{value:.0f}" for value in (found[-1], *found[:-1]))


def celeba() -> tuple[str, ...]:
    made = committed("celeba@1")
    (images,) = {sum(one.data.n.model_dump().values()) for one in made}
    return COUNTS[len({one.cell.variant for one in made})], f"{images:,}"


def unmeasured() -> tuple[str, ...]:
    scores = {score: name for name, wanted in choose().items() for score in wanted}
    lacking = {name for score, name in scores.items()
               if not all(score in one.metrics for one in committed("disentanglement@2"))}  # fmt: skip
    return (" and ".join(sorted(name.partition("@")[0] for name in lacking)),)


def easier() -> tuple[str, ...]:
    """How much the first images of MNIST that have a bound of k samples are, in the median over models."""
    found = []
    for group, first in (("mnist@1", 500), ("family@1", 1000)):
        bounded = [each(one, "elbo") for one in committed(group) if "elbo" in one.metrics]
        assert suite_named(group.partition("@")[0]).defaults["evaluate"]["nll_images"] == first
        found.append(statistics.median(elbo[:first].mean() - elbo.mean() for elbo in bounded))
    return tuple(f"{value:.0f}" for value in found)


def ex_post_seeds() -> tuple[str, ...]:
    seeds: dict[str, set[int]] = {}
    for group in ("mnist@1", "family@1"):
        for one in committed(group):
            for name in one.metrics:
                if name.endswith("_ex_post"):
                    kind = "Inception" if name.startswith("fid") else group
                    seeds.setdefault(kind, set()).add(one.cell.seed)
    assert seeds == {"mnist@1": {0, 1, 2}, "family@1": {0}, "Inception": {0}}
    return ()


def likeness() -> tuple[str, ...]:
    return (f"{values('mnist@1', 'vae', 'ssim')[0]:.3f}".lstrip("0"),)


def recall_errors() -> tuple[str, ...]:
    rows = (("mnist@1", "vae"), ("family@1", "vamp_vae"))
    return tuple(f"{values(*row, 'recall_digits', 'stderr')[0]:.4f}".lstrip("0") for row in rows)


def apart_on_the_same_images() -> tuple[str, ...]:
    """Of VQ-VAE, whose k-sample bound of an image is its ELBO."""
    pairs = zip(*(values("mnist@1", "vq_vae", name) for name in ("elbo", "nll_iwae_512")), strict=True)
    return tuple(f"{-elbo - nll:.1f}" for elbo, nll in pairs)


def without_images() -> tuple[str, ...]:
    (group,) = {path.parent.name for path in RECORDS.rglob("*.json") if not path.with_suffix(".npz").exists()}
    bounds = [metric for one in committed(group) for name, metric in one.metrics.items() if name.startswith("nll_")]
    (found,) = {(metric.identity["k"], metric.n) for metric in bounds}
    (of,) = {one.metrics["elbo"].n for one in committed(group)}
    return group, *(str(number) for number in (*found, of))


def what_a_grid_costs() -> tuple[str, ...]:
    def mean(variant: str, metric: str) -> float:
        return statistics.mean(values("family@1", variant, metric))

    assert len(values("family@1", "autoencoder_kl", "psnr")) == 3
    pictures = {name: mean(name, "psnr") for name in {one.cell.variant for one in committed("family@1")}}
    best, second = sorted(pictures, key=pictures.get, reverse=True)[:2]
    assert best == "autoencoder_kl"
    (first,) = (one for one in committed("family@1") if (one.cell.variant, one.cell.seed) == ("autoencoder_kl", 0))
    return (
        *(f"{pictures[name]:.1f}" for name in (best, "vae", second)),
        f"{mean(best, 'rate'):,.0f}", f"{mean('vae', 'rate'):.0f}",
        *(f"{mean(name, 'fd_digits'):.1f}" for name in (best, "vae")),
        *(f"{first.metrics[name].value:.1f}" for name in ("fd_digits", "fd_digits_ex_post")),
    )  # fmt: skip


def published() -> tuple[str, ...]:
    found = []
    for name in ("vae", "ladder_vae"):
        listed = registry().variants[name].published
        (one,) = (one for one in listed if (one.dataset, one.metric, one.mark) == ("mnist", "nll", "2"))
        found.append(f"{one.value:.2f}")
    return tuple(found)


def shares() -> tuple[str, ...]:
    """What of a cell is its evaluation."""
    took = {group: [one.seconds for one in committed(group)] for group in ("celeba@1", "importance@1")}
    celeba, importance = (sum(s.evaluate for s in of) / sum(s.total for s in of) for of in took.values())
    assert 0.25 <= celeba < 0.3 and importance == pytest.approx(1 / 3, abs=0.03)
    return ()


CLAIMS: list[tuple[str, str, Callable[[], tuple[str, ...]]]] = [
    (
        "docs/variants/autoencoder_kl.md",
        r"a PSNR of ([\d.]+) dB where the \[VAE\]\(vae.md\)'s have ([\d.]+) and the next best variant's ([\d.]+)\. "
        r"The codes pay for it: ([\d,]+) nats of rate beside (\d+)\. .* an `fd_digits` of ([\d.]+) beside ([\d.]+); "
        r"ten Gaussians fitted to the codes of seed 0 take its from ([\d.]+) to ([\d.]+)\.",
        what_a_grid_costs,
    ),
    ("README.md", r"\(fd_digits (\d+) beside (\d+) and (\d+)\)", lost_run),
    ("README.md", r"It also has the (\w+) on CelebA \(`zoo bench celeba`, ([\d,]+) of its images", celeba),
    ("README.md", r"every disentanglement metric but (\w+),", unmeasured),
    ("README.md", r"are easier \(500 by some (\d+) nats, 1,000 by (\d+)\)", easier),
    ("docs/metrics.md", "those of `family`, and all in Inception's features, are of seed 0 alone", ex_post_seeds),
    ("docs/metrics.md", r"for `vae` of `mnist@1` \(seed 0\), where ours is (\.\d+)\.", likeness),
    ("docs/metrics.md", r"whose ± says (\.\d+), and of \.\d+ for `vamp_vae` of `family@1` \((\.\d+);", recall_errors),
    ("docs/theory/bounds.md", r"is ([\d.]+), ([\d.]+) and ([\d.]+) nats for VQ-VAE", apart_on_the_same_images),
    ("docs/theory/bounds.md",
     r'The records of `(\w+@\d+)` have no npz: their NLL, "NLL \(k = (\d+)\)", is of the first (\d+) of (\d+) images',
     without_images),
    ("docs/theory/hierarchies.md", r"\(([\d.]+) for a VAE, ([\d.]+) for the Ladder VAE, both at second", published),
    ("docs/howto/faster.md",
     r"is its evaluation, a quarter or a little more of one of `celeba`, .*, a third where the NLL has a k of 1,000",
     shares),
]  # fmt: skip


@pytest.mark.parametrize(("page", "pattern", "found"), CLAIMS, ids=[found.__name__ for *_, found in CLAIMS])
def test_a_claim_is_what_the_records_say(page: str, pattern: str, found: Callable[[], tuple[str, ...]]) -> None:
    assert said(page, pattern) == found()


def test_how_far_two_rows_are_apart_is_what_their_comparison_says() -> None:
    def compared(records: list[Record], paired: bool) -> dict[str, Difference]:
        found = against(records, "ladder_vae", "flow_vae", folder=RECORDS if paired else None)
        assert {one.paired for one in found if one.column.metric.startswith("nll_iwae_512")} == {paired}
        return {one.column.metric: one for one in found}

    made = committed("mnist@1")
    ours, first = compared(made, True), [one for one in made if one.cell.seed == 0]
    one, bare = compared(first, True), compared(first, False)
    number = r"([\d.]+(?: ± [\d.]+)?)"
    pattern = (
        rf"tie on the board \({number} and {number}\), are {number} nats apart .* three seeds each\. Of their seeds 0 "
        rf"alone it is {number} image by image and ± {number} without the pairing .* Of all images \({number} and "
        rf"{number}, which the board tells apart\) it is {number}, and of seeds 0 alone {number} with the pairing and "
        rf"± {number} without\."
    )
    expected = []
    for metric, digits in (("nll_iwae_512", 1), ("nll_iwae_512_all", 2)):
        expected += [plus_minus(end.value, end.stderr) for end in (ours[metric].a, ours[metric].b)]
        expected += [f"{abs(of[metric].value):.2f} ± {of[metric].error:.2f}" for of in (ours, one)]
        expected.append(f"{bare[metric].error:.{digits}f}")
    assert list(said("docs/howto/compare.md", pattern)) == expected
    unpaired = {one.column.metric: one.better for one in against(made, "ladder_vae", "flow_vae")}
    assert (unpaired["nll_iwae_512"], unpaired["nll_iwae_512_all"]) == ("tie", "ladder_vae")


# ---- of the measurements --------------------------------------------------------------------------------------------


def table(section: str, columns: int) -> dict[str, list[str]]:
    """The rows of a section of the page of performance that have so many columns, by the first of these, without what
    makes numbers bold."""
    text = (ROOT / "docs" / "performance.md").read_text().replace("**", "")
    (found,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows if len(row) == columns and row[1][:1].isdigit()}


def first(cell: str) -> float:
    """The number of a cell that has a range behind it."""
    return float(cell.split(",")[0])


def ends(values: Iterable[float], digits: int = 1) -> tuple[str, str]:
    kept = sorted(values)
    return f"{kept[0]:.{digits}f}", f"{kept[-1]:.{digits}f}"


def test_how_much_faster_a_choice_is_said_to_be_is_what_the_tables_of_performance_say() -> None:
    page = "docs/howto/faster.md"
    products = [first(row[2]) for row in table("Dense layers on an AMD processor", 5).values()]
    assert said(page, r"\[([\d.]+) to ([\d.]+) times as fast a step\]") == ends(products)
    compiled = {name: (first(row[2]), float(row[3])) for name, row in table("Compiled losses", 5).items()}
    loss, _ = compiled.pop("factor_vae")
    pattern = r"([\d.]+) to ([\d.]+) for fifteen .* after (\d+) to (\d+) seconds; ([\d.]+) for factor_vae"
    ratios, seconds = zip(*compiled.values(), strict=True)
    assert len(compiled) == 15 and said(page, pattern) == (*ends(ratios), *ends(seconds, 0), f"{loss:.2f}")


def test_what_bf16_gains_on_a_cpu_is_what_the_tables_of_performance_say() -> None:
    # Beside float32, both of them beside pythae: of convolutions, and of dense layers that are compiled.
    xeon, nets, zen = (table("Beside pythae 0.1.2", columns) for columns in (4, 5, 3))

    def gains(rows: dict[str, list[str]], plain: str, half: str, columns: int) -> list[float]:
        (fast,) = (row for name, row in rows.items() if name.startswith(half))
        return [first(fast[place]) / first(rows[plain][place]) for place in range(columns)]

    fast = "`train.precision=fast`"
    large = gains(nets, "float32", fast, 3)
    large += gains(zen, "convolutional nets, float32", f"convolutional nets, {fast}", 1)
    compiled = "`train.compile`"
    dense = gains(xeon, f"float32, {compiled}", f"bf16, {compiled}", 2)
    dense += gains(zen, f"MLP, float32, {compiled}", f"MLP, bf16, {compiled}", 1)
    pattern = r"([\d.]+) to ([\d.]+) for large convolutional nets, ([\d.]+) to ([\d.]+) for dense ones that are"
    assert said("docs/howto/faster.md", pattern) == (*ends(large), *ends(dense))


def test_how_cost_grows_is_said_as_its_table_has_it() -> None:
    text = (ROOT / "docs" / "performance.md").read_text().split("## How cost grows")[1]
    rows = re.findall(r"^\|[^|]*\| ([\d ]+) \| ([\d.]*) ?\| ([\d.]*) ?\| ([\d.]*) ?\| ([\d.]*) ?\|$", text, re.M)
    assert len(rows) == 14
    million, fewer = rows[2], rows[1]
    small, middle, large = (float(row[2]) for row in rows[3:6])
    least, *_, widest = (float(row[2]) for row in rows[6:10])
    page = "docs/performance.md"
    pattern = r"order of a million images is (\d+) times that of 100 000: .* it is ([\d.]+) % of the epoch"
    epoch = 1e3 * 1e6 / float(million[1])
    order = f"{float(million[3]) / float(fewer[3]):.0f}", f"{100 * float(million[3]) / epoch:.2f}"
    assert said(page, pattern) == order
    assert said(page, r"From 64 to 128 pixels a step costs ([\d.]+) times as much for 4") == (f"{large / middle:.1f}",)
    ours = [float(row[4]) / int(row[0]) for row in rows[10:]]
    assert ours == sorted(ours, reverse=True)  # as the page says, an image's evaluation grows more slowly than k
    faster = "docs/howto/faster.md"
    assert said(faster, r"512 latents in place of 8 a dense one ([\d.]+) times") == (f"{widest / least:.1f}",)
    said(faster, r"Four times the pixels take a convolutional network about four times as long")
    for ratio in (large / middle / 4, middle / small / (64 / 28) ** 2):
        assert ratio == pytest.approx(1, abs=0.2)


def test_what_a_stack_costs_on_a_gpu_is_what_was_printed_there() -> None:
    printed = json.loads((ROOT / "docs" / "assets" / "seeds-h100.json").read_text())
    shown = ", ".join(f"{one['variant']} {one['stack / one']:.2f}" for one in printed["seeds"])
    assert {(one["precision"], one["seeds"]) for one in printed["seeds"]} == {("bf16", 8)}
    pattern = r"Seen on one H100 \(torch ([\d.]+), .* of one captured run, in bf16, medians .*? bursts: (.*?), where"
    assert said("docs/performance.md", pattern) == (printed["about"]["torch"].partition(".0+")[0], shown)


# ---- of the variants ------------------------------------------------------------------------------------------------


@functools.cache
def variants() -> dict[str, VAE]:
    return {name: subject(name).make() for name, entry in registry().variants.items() if entry.origin == "built-in"}


def those(holds: Callable[[VAE], bool]) -> set[str]:
    return {name for name, model in variants().items() if holds(model)}


def test_the_variants_that_a_page_lists_are_all_that_are_so() -> None:
    for page, pattern, holds in (
        ("docs/performance.md", r"one that trains one part after another \(([^)]*)\)",
         lambda model: type(model).stage is not VAE.stage),
        ("docs/howto/collapse.md", r"one without a weight that rises \(([^)]*)\)", lambda model: not model.warms_up),
        ("docs/howto/compress.md", r"grids of codes with priors of their own \(([^)]*)\)",
         lambda model: isinstance(model, QuantisedVAE) and why_not(model) is None),
        ("docs/theory/elbo.md", r"Every variant of this repository but \[[A-Z]+\]\(\.\./variants/(\w+)\.md\)",
         lambda model: not model.bounds),
    ):  # fmt: skip
        (listed,) = said(page, pattern)
        assert set(re.findall(r"\w+", listed)) & variants().keys() == those(holds) != set(), page
    assert subject("adversarial_ae").make(rate=0.1).warms_up  # as the page of collapse says


def test_what_active_units_are_counted_against_is_what_the_page_says() -> None:
    pattern = (
        r"above (\S+) of the prior's under one Gaussian, so above \S+ where that is 1 \(Burda et al\. 2016\); "
        r"above \S+ / D on the sphere in D dimensions, above \S+ a / b\^2 under a Gamma of shape a and rate b, "
        r"above \S+ p \(1 - p\) for a class of probability p, and above \S+ under any other prior;"
    )
    assert said("docs/metrics.md", pattern) == (f"{ACTIVE_VARIANCE}",)
    assert subject("svae").make(latent=5).code_variance == pytest.approx(1 / 5)
    assert subject("gamma_vae").make(prior_shape=3.0, prior_rate=2.0).code_variance == pytest.approx(3 / 4)
    classes = subject("categorical_vae").make(classes=4).code_variance
    assert classes.tolist() == pytest.approx([1 / 4 * 3 / 4] * len(classes))
    learnt = subject("vae").make(prior={"name": "diagonal"})
    with torch.no_grad():
        learnt.prior.log_variance.fill_(math.log(9))
    assert learnt.code_variance.tolist() == pytest.approx([9.0] * learnt.settings.latent)
    for prior in ("mixture", "vamp", "flow", "energy", "diffusion"):
        assert subject("vae").make(prior={"name": prior}).code_variance == 1.0, prior
    told = {"svae", "gamma_vae", "categorical_vae", "joint_vae", "m2"}
    others = {name for name, model in variants().items() if not (torch.as_tensor(model.code_variance) == 1).all()}
    assert others == told


def test_the_variants_without_annealed_bounds_or_simulated_images_are_those_that_the_page_names() -> None:
    def has(ask: Callable[..., object], *given: object) -> bool:
        try:
            ask(*given)
        except UsageError:
            return False
        return True

    kinds, gapless = said(
        "docs/metrics.md",
        r"Every model whose log-weights are .* any prior\. (Codebooks, [\w, ]+) have none\. `ais_gap` needs .* "
        r"from the top, have it; ([^;]*) have not;",
    )
    x, y = torch.ones(2, *DIGITS.shape), torch.arange(2)
    bounded = those(lambda model: model.bounds)
    annealed = bounded & those(lambda model: has(Noise, model, x, y))
    named = {
        "Codebooks": {"vq_vae", "vq_vae_2"}, "categorical variables": {"categorical_vae", "joint_vae", "m2"},
        "spheres": {"svae"}, "Gammas": {"gamma_vae"},
    }  # fmt: skip
    assert set(re.split(r", | and ", kinds)) == named.keys() and bounded - annealed == set().union(*named.values())
    simulated = annealed & those(lambda model: has(model.simulate, 2, y))
    named = {
        "flows": {"flow_vae"}, "leapfrog steps": {"hamiltonian_vae", "riemannian_vae"},
        **{f"`{name}`": {name} for name in ("poincare_vae", "hvae", "quadrant_cvae")},
        "models under an energy": {"energy_vae"}, "a diffusion prior": {"diffusion_vae"},
    }  # fmt: skip
    assert set(re.split(r", | and | or ", gapless)) == named.keys()
    assert annealed - simulated == set().union(*named.values())


def test_the_variants_whose_refusal_of_free_bits_has_a_reason_are_those_that_the_page_names() -> None:
    (listed,) = said("docs/howto/collapse.md", r"where there is more to say than that its loss is its own: (.*?)\. ##")
    reasoned = those(lambda model: bool(model.charges_by) and not model.frees_bits)
    grids = those(lambda model: isinstance(model, QuantisedVAE))
    named = set(re.findall(r"`(\w+)`", listed)) & variants().keys()
    asked = {"hvae": {"k": 2}, "s2_beta_vae": {"labels_alone": True}}  # as the page says of these two
    assert named == (reasoned - grids) | asked.keys()
    assert grids < reasoned and listed.endswith("grids of codes are trained before their prior")
    for name, settings in asked.items():
        refused = subject(name).make(**settings)
        assert variants()[name].frees_bits and not refused.frees_bits and refused.charges_by, name


def test_a_prior_can_be_exchanged_where_the_page_says() -> None:
    pattern = (
        r"`vamp` on those without a condition and with a diagonal posterior, `energy` and `diffusion` not under "
        r"leapfrog steps \(`(\w+)`, `(\w+)`\), and one that learns not where no rate is trained \(`(\w+)`, unless"
    )
    *leapfrog, unrated = said("docs/theory/priors.md", pattern)
    refused = set()
    for name in variants():
        for prior in PRIORS:
            try:
                subject(name).make(prior={"name": prior})
            except UsageError:
                refused.add((name, prior))
    having = variants().keys() - {name for name, prior in refused if prior == "standard"}
    assert {*leapfrog, unrated} < having
    refused = {(name, prior) for name, prior in refused if name in having}
    diagonal = those(lambda model: not model.conditional and model.settings.posterior.name == "diagonal"
                     if hasattr(model.settings, "posterior") else True)  # fmt: skip
    assert refused == {
        *((name, "vamp") for name in having - diagonal),
        *((name, prior) for name in leapfrog for prior in ("energy", "diffusion")),
        *((unrated, prior) for prior in PRIORS if prior != "standard"),
    }
    assert subject(unrated).make(rate=0.1, prior={"name": "vamp"})


def test_the_flows_that_a_page_says_every_image_has_its_own_of_are_those() -> None:
    (listed,) = said("docs/theory/flows.md", r"## What is amortised ([\w, ]+) steps come from the encoder whole")
    asked = 3
    shared = {name for name, make in FLOWS.items()
              if make(PosteriorSettings(name=name, context=asked, hidden=8), 4).context == asked}  # fmt: skip
    own = FLOWS.keys() - shared
    assert set(listed.lower().replace(" and ", ", ").split(", ")) == own


def test_the_parts_that_the_readme_lists_are_all_there_are() -> None:
    (densities,) = said("README.md", r"under a Bernoulli or a density \(([^)]*)\) are never")
    kinds = {name for name, kind in LIKELIHOODS.items() if kind.is_density}
    assert {re.sub(r"[ -]", "_", name.lower()) for name in densities.split(", ")} == kinds
    (flows,) = said("README.md", r"posterior through ([\w, ]+) flows")
    assert set(flows.lower().replace(" or ", ", ").split(", ")) == set(FLOWS)


def test_the_settings_that_change_no_number_are_those_that_the_page_names() -> None:
    (listed,) = said("docs/settings.md", r"which only how fast: ([^:]*) change no number beyond rounding")
    assert set(re.findall(r"`([\w.]+)`", listed)) == NEUTRAL


def test_the_numbers_of_the_code_that_pages_state_are_those_of_the_code() -> None:
    from benchmarks.commands.compress import LANES
    from benchmarks.evaluation import classification, clustering, ex_post, representation
    from benchmarks.metrics import annealed, clusters, inference, likelihood
    from benchmarks.running import ahead
    from zoo.coding import bits_back, masses
    from zoo.config import ROWS
    from zoo.distributions import code_flow
    from zoo.training import capture, memory, precision, trainer

    performance, metrics, compress = "docs/performance.md", "docs/metrics.md", "docs/howto/compress.md"
    for page, pattern, *found in (
        (performance, r"where the run is long enough to pay: from (\w+) operations on",
         f"{precision.COMPILE_FROM:.0e}".replace("+", "")),
        (performance, r"takes none that is less than ([\d.]+) times as fast", f"{ahead.WORTH}"),
        (performance, r"k-sample bound holds (\d+) decoder rows at once", f"{ROWS}"),
        (performance, r"keeps what it frees .* up to (\d+) GiB at once", f"{memory.KEPT >> 30}"),
        (performance, r"is captured after (\w+) ordinary steps", COUNTS[capture.WARM_UP]),
        (performance, r"kept as three and added up every (\d+) steps", f"{trainer.COUNT_STEPS}"),
        ("docs/reliability.md", r"a quarter of the learning rate, at most (\d) times", f"{trainer.RETREATS}"),
        (metrics, r"\*\*The best Gaussian\.\*\* (\d+) steps of Adam .*, (\w+) reparameterised draws a step, the rate "
         r"falling from (\.\d+) to 0 as a cosine\. Of (\w+) places on the way, .* highest ELBO on (\d+) draws",
         f"{inference.STEPS}", COUNTS[inference.DRAWS], f"{inference.RATE:.2f}"[1:], COUNTS[inference.PLACES],
         f"{inference.COMPARED}"),
        (metrics, r"Both ELBOs are means over ([\d,]+) draws", f"{inference.SAMPLES:,}"),
        (metrics, r"Hamiltonian Monte Carlo \((\w+) leapfrog steps,", COUNTS[annealed.LEAPFROG]),
        (metrics, r"mean of \$W\$ over the (\w+) chains of an image", COUNTS[annealed.CHAINS]),
        (metrics, r"Of (\d+) beginnings by k-means\+\+", f"{clusters.RESTARTS}"),
        (metrics, r"Codes of more than (\d+) numbers, fewer different", f"{clustering.WIDEST}"),
        (metrics, r"or have more than (\d+) dimensions have none", f"{ex_post.WIDEST}"),
        (metrics, r"It takes (\d+) codes at least, of (\d+) dimensions at most",
         f"{code_flow.FEWEST}", f"{code_flow.WIDEST}"),
        (metrics, r"our digit classifier, (\d+) steps of", f"{classification.STEPS}"),
        (metrics, r"\| `cas_few` \| (\d+) real images", f"{classification.FEW}"),
        (metrics, r"\| ([\d ]+) draws, ([\d ]+) components \|",
         *(f"{one:,}".replace(",", " ") for one in (representation.DRAWS, representation.COMPONENTS))),
        (metrics, r"\*\*Pictures\*\* of ([\d ]+) codes", f"{representation.PLOTTED:,}".replace(",", " ")),
        (metrics, r"no pixel costs more than (\d+) bits, and no latent variable more than (\d+) under",
         f"{masses.TABLE_BITS}", f"{masses.GAUSSIAN_BITS - 1}"),
        (compress, r"no pixel costs more than (\d+) bits, and no latent variable more than (\d+) under",
         f"{masses.TABLE_BITS}", f"{masses.GAUSSIAN_BITS - 1}"),
        (compress, r"stored as one of ([\d,]+) buckets", f"{1 << bits_back.BUCKET_BITS:,}"),
        (compress, r"`--lanes 1` has one stack and is slow, the default is (\d+)\.", f"{LANES}"),
        ("docs/howto/cluster.md", r"#SBATCH --array=1-(\d+) ", f"{len(plan(suite_named('mnist')))}"),
    ):  # fmt: skip
        assert said(page, pattern) == tuple(found), pattern
    assert likelihood.HELD == 1 << 22 and said(performance, r"has more than four million numbers, on a GPU") == ()
