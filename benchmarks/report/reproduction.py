"""leaderboard/REPRODUCTION.md: every recipe beside the number it is to reproduce. A function of recipes and records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from benchmarks.recipe import (
    Judgement,
    Order,
    OrderJudgement,
    Recipe,
    RecipeFile,
    Target,
    Word,
    judge,
    judge_order,
    of_recipe,
)
from benchmarks.record import Record
from benchmarks.report.notation import code, escape, estimate, link, number, spelled
from benchmarks.report.tables import flat
from zoo.config import NEUTRAL, decisive

HEADER = """\
<!-- Made from the recipes and their records. Do not edit: `zoo reproduce` writes it. -->

# Reproduction

Published numbers, and what comes out when their recipe is run here. `zoo reproduce NAME` trains a recipe, evaluates
it as published and writes this page; given no name it lists them all.

**Verdicts** are rules fixed before a run. *reproduced*: the mean over seeds lies in the recipe's pass band; *close*: in
its wider band; *not*: outside of both, and a number that is too good is outside as well; *not run*: seeds lack
numbers, and why. Bands are ours, from how far independent re-implementations are apart. A recipe that departs from its
paper says so below its table, and its verdict is that of what was run. An *order* says of two numbers which is the
smaller, as published, and how far apart ours have to be; both are of the same test images. It compares means, knows no
error, and may be younger than the records that it is of: the history of the recipe's file tells.

**Marks** on a published number: R read in the source that is named, 2 read at second hand, B quoted by others.
`mean ± e`: e is the standard error over test images; `[s, n seeds]` the spread over training seeds. Test bits are drawn
once, no test image is used for stopping or choosing, and k is part of a metric's name. Hours are what a seed took on
the device by the clock, evaluation included, with as many threads as its record says; the estimate is of one core and
today's code, and may be younger than the record.
"""

COLUMNS = "| recipe | what | published | ours | difference | pass band | verdict | device | hours | estimate |"
RULE = "| :-- | :-- | --: | --: | --: | :-- | :-- | :-- | --: | :-- |"
ORDER_WORDS = {"holds": "hold", "does not hold": "do not", "not run": "not run"}
ORDERS = "| smaller | larger | gap published | ours | at least | order |\n| :-- | :-- | --: | --: | --: | :-- |"


def page(files: Mapping[str, RecipeFile], records: list[Record]) -> str:
    """The whole page."""
    words = [made.word for *_, made in verdicts(files, records)]
    counts = ", ".join(f"{words.count(word)} {word}" for word in get_args(Word))
    orders = [one.word for _, one in order_verdicts(files, records)]
    held = ", ".join(f"{orders.count(word)} {said}" for word, said in ORDER_WORDS.items())
    parts = [HEADER, f"Of {len(words)} published numbers: {counts}. Of {len(orders)} orders among them: {held}.\n"]
    for made in files.values():
        parts.append(f"## {link(made.paper, made.url)}\n")
        if made.read:
            parts.append(f"{escape(made.read)}\n")
        rows = [row for name, recipe in made.recipes.items() for row in _rows(name, recipe, records)]
        parts.append("\n".join([COLUMNS, RULE, *rows]) + "\n")
        if made.orders:
            judged = [_order(order, judge_order(made, order, records)) for order in made.orders]
            parts.append("\n".join([ORDERS, *judged]) + "\n")
        remarks = [*_remarks(made.recipes), *_uncommitted(made.recipes, records), *_earlier(made.recipes, records)]
        parts.append("\n".join(remarks) + "\n")
    return "\n".join(parts)


def verdicts(
    files: Mapping[str, RecipeFile], records: list[Record]
) -> list[tuple[str, Recipe, Target, Judgement]]:
    """What became of every target of every recipe."""
    found = []
    for made in files.values():
        for name, recipe in made.recipes.items():
            own = of_recipe(name, recipe, records)
            found += [(name, recipe, target, judge(recipe, target, own)) for target in recipe.targets]
    return found


def order_verdicts(files: Mapping[str, RecipeFile], records: list[Record]) -> list[tuple[Order, OrderJudgement]]:
    """What became of every order."""
    return [(order, judge_order(made, order, records)) for made in files.values() for order in made.orders]


def published(target: Target) -> str:
    """``86.76 (2)``: the number as it was printed, and its mark."""
    error = "" if target.stderr is None else f" ± {number(target.stderr, 3)}"
    return f"{number(target.value)}{error} ({target.mark})"


def ours(judgement: Judgement) -> str:
    """Our number with its errors, or a dash."""
    return "–" if judgement.ours is None else estimate(judgement.ours, judgement.ours.seeds)


def difference(judgement: Judgement) -> str:
    """Ours minus published, with its sign, or a dash."""
    return "–" if judgement.difference is None else f"{judgement.difference:+.3g}"


def _rows(name: str, recipe: Recipe, records: list[Record]) -> list[str]:
    own = of_recipe(name, recipe, records)
    done = [made for made in own if made.status == "done" and made.cell.seed in recipe.seeds]
    devices = sorted({made.environment.device for made in done})
    hours = [made.seconds.total / 3600 for made in done if made.seconds.total]
    rows = []
    for target in recipe.targets:
        made = judge(recipe, target, own)
        verdict = f"**{made.word}**" if made.word == "reproduced" else made.word
        low, high = target.band
        cells = (
            f"`{name}`" if recipe.blocked else f"`zoo reproduce {name}`",
            f"{escape(recipe.title)}: {escape(target.label)}",
            published(target),
            ours(made),
            difference(made),
            f"{number(low)} to {number(high)}",
            verdict + (f": {escape(made.why)}" if made.why and made.word == "not run" else ""),
            escape(", ".join(devices)) or "–",
            number(sum(hours) / len(hours), 2) if hours else "–",
            escape(_cost(recipe)) or "–",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _order(order: Order, made: OrderJudgement) -> str:
    gap = "–" if made.ours is None else number(made.ours, 3)
    least = number(order.by, 2) if order.by else "more than 0"
    word = f"**{made.word}**" if made.word == "holds" else made.word
    ends = (code(order.smaller.replace("/", ": ")), code(order.larger.replace("/", ": ")))
    return f"| {' | '.join((*ends, number(made.published, 3), gap, least, word))} |"


def _remarks(recipes: Mapping[str, Recipe]) -> list[str]:
    # What several recipes have in common is said once.
    said: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        text = escape(recipe.protocol)
        if recipe.departures:
            text += f" Departs from the paper: {escape('; '.join(recipe.departures))}."
        text += f" Published in: {escape('; '.join(sorted({target.source for target in recipe.targets})))}."
        said.setdefault(text, []).append(f"`{name}`")
    return [f"- {', '.join(names)}: {text}" for text, names in said.items()]


def _uncommitted(recipes: Mapping[str, Recipe], records: list[Record]) -> list[str]:
    # Code that is in no commit cannot be looked up.
    said = []
    for name, recipe in recipes.items():
        for made in of_recipe(name, recipe, records):
            if made.environment.git_dirty:
                code_of = f"code with changes after {(made.environment.git_commit or '')[:7]}"
                said.append(f"- `{name}`: seed {made.cell.seed} ran on {code_of} that are in no commit.")
    return said


def _earlier(recipes: Mapping[str, Recipe], records: list[Record]) -> list[str]:
    # What a recipe gave with other settings stays on the page: a miss is kept, and so is what was tried.
    said = []
    for name, recipe in recipes.items():
        now = of_recipe(name, recipe, records)
        before: dict[str, list[Record]] = {}
        for made in records:
            if made.cell.suite == name and made not in now:
                before.setdefault(_apart(made, recipe), []).append(made)
            elif made in now and made.cell.seed not in recipe.seeds:
                before.setdefault("seeds that are not the recipe's", []).append(made)
        for other, some in before.items():
            if not any(made.status == "done" for made in some):
                continue
            then = recipe.model_copy(update={"seeds": tuple(sorted({made.cell.seed for made in some}))})
            found = [(target, judge(then, target, some)) for target in recipe.targets]
            numbers = (
                f"{escape(target.label)} {ours(one)} ({escape(one.why) if one.word == 'not run' else one.word})"
                for target, one in found
            )
            said.append(f"- `{name}` before, with {other}: {', '.join(numbers)}.")
    return said


def _apart(made: Record, recipe: Recipe) -> str:
    # The settings of training that a record has otherwise than the recipe has them now; else those of evaluation, or
    # settings that are gone, or nothing but the version.
    then, now = (dict(flat(one)) for one in (made.config, recipe.run_config(made.cell.seed).identity()))
    known = sorted(name for name in now.keys() - NEUTRAL if then.get(name) != now[name])
    names = [name for name in known if name.startswith(("model.", "train.", "data."))]
    names = names or known or sorted(dict(flat(decisive(made.config))).keys() - now.keys())
    settings = ", ".join(code(f"{name}={spelled(then.get(name, 'none'))}") for name in names)
    return settings or f"version {made.cell.version} of the recipe"


def _cost(recipe: Recipe) -> str:
    cost, said = recipe.cost, []
    if cost.cpu_seconds_per_epoch and not recipe.blocked:
        epochs = recipe.run_config(recipe.seeds[0]).train.epochs
        seconds = epochs * cost.cpu_seconds_per_epoch + (cost.cpu_evaluation_seconds or 0.0)
        most = "at most " if recipe.config.get("train", {}).get("patience") else ""
        said.append(f"{most}{number(seconds / 3600, 2)} CPU-hours")
    if cost.gpu_minutes:
        said.append(f"H100 {cost.gpu_minutes:g} min")
    if cost.note:
        said.append(cost.note.rstrip("."))
    return "; ".join(said)
