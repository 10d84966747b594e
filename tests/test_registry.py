"""Names, entries, settings: what is accepted, and what is said when something is not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import BaseModel

import zoo.registry as names
from tests.conftest import ROOT
from zoo import create_model, list_models
from zoo.config import RunConfig, check_model, measured_otherwise, resolve
from zoo.data.images import SPLITS, DataSpec, Images, ImageSet
from zoo.errors import UsageError
from zoo.files import canonical_json, fingerprint
from zoo.models import canonical, check_settings
from zoo.models.ada_vae import AdaVAE
from zoo.models.base import Settings
from zoo.plain_yaml import parse_yaml, read_yaml
from zoo.registry import DatasetEntry, Registry, VariantEntry, registry
from zoo.runs.images import _loaded
from zoo.settings import merge, parse_setting

GOOD = """\
schema: 1
variants:
  mine:
    class: some.module:Class
    title: Mine
datasets: {}
"""


def test_a_bad_name_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"^no variant 'beta-vea'\. Did you mean 'beta_vae'\? `zoo list` shows all\.$"):
        registry().variant("beta-vea")


def test_a_dash_works_for_an_underscore() -> None:
    assert registry().variant("Beta-VAE")[0] == "beta_vae"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("title: Mine", "title: Mine\n    tilte: x"),
         r":6: variants\.mine\.tilte: unknown key; did you mean 'title'\?$"),
        # One key of which two things are wrong: it is unknown, and what it should have been is missing.
        (GOOD.replace("title: Mine", "tilte: Mine"), r":5: variants\.mine\.tilte: unknown key; did you mean 'title'"),
        (GOOD.replace("title: Mine", "title: Mine\n    qqq: x"), r":6: variants\.mine\.qqq: unknown key\.$"),
        (GOOD.replace("some.module:Class", "nonsense"), r":4: variants\.mine\.class: string should match"),
        (GOOD.replace("schema: 1", "schema: 2"), r":1: schema: input should be 1"),
        (GOOD.replace("title: Mine", "title: Mine\n    title: Yours"), r":6: not valid YAML \(the key 'title' is"),
        (GOOD + GOOD[GOOD.index("variants:") :], r"the key 'variants' is there twice\)"),
        ("variants: [", r"not valid YAML"),
        ("", r":1: the file: input should be a mapping of keys to values\.$"),
        (GOOD.replace("datasets: {}", "datasets: 3"), r":6: datasets: input should be a mapping of keys to values\.$"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_broken_registry_is_refused_with_file_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_yaml(path, Registry)


def test_a_key_may_be_merged_and_then_said_otherwise() -> None:
    _, value = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: *a, y: 4}\n")
    assert (value["b"], value["c"]) == ({"x": 1, "y": 3}, {"x": 1, "y": 4})


def test_a_huge_registry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text("#" * (2 << 20))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_yaml(path, Registry)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("zoo.nowhere:Mine", r"^there is no module 'zoo\.nowhere', which the registry names as 'zoo\.nowhere:Mine'\.$"),
        ("nowhere.at_all:Mine", r"^there is no module 'nowhere', "),
        ("zoo.models.vae:Mine", r"^module 'zoo\.models\.vae' has no 'Mine', "),
        ("zoo.data.images:ImageSet", r"is no variant: its class has to be one of zoo\.models\.base\.VAE\.$"),
        ("zoo.models.vae:make_prior", r"is no variant"),
    ],
)
def test_what_is_no_variant_is_refused_in_words(target: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        VariantEntry(target=target, title="Mine").load()


def test_a_module_that_lacks_one_of_its_own_imports_says_so(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "lacking_one.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        VariantEntry(target="lacking_one:Mine", title="Mine").load()


def test_a_loading_function_that_returns_no_data_set_is_refused(monkeypatch) -> None:
    entry = DatasetEntry(target="builtins:dict", title="Mine")
    monkeypatch.setattr(type(entry), "load", lambda self: lambda: None)
    mine = registry().model_copy(update={"datasets": {"nothing_yet": entry}})
    monkeypatch.setattr("zoo.runs.images.registry", lambda: mine)
    with pytest.raises(UsageError, match=r"^'builtins:dict' returns a NoneType, and a data set is a zoo\.data"):
        _loaded("nothing_yet", "{}")


def test_pixels_that_binary_data_cannot_have_are_refused_when_it_is_loaded(monkeypatch) -> None:
    ones = {split: Images(torch.ones(5, 1, 2, 2, dtype=torch.uint8)) for split in SPLITS}
    made = ImageSet("mine", ones, DataSpec((1, 2, 2), "binary"))
    entry = DatasetEntry(target="builtins:dict", title="Mine", support="binary")
    monkeypatch.setattr(type(entry), "load", lambda self: lambda: made)
    mine = registry().model_copy(update={"datasets": {"ones_as_ones": entry}})
    monkeypatch.setattr("zoo.runs.images.registry", lambda: mine)
    with pytest.raises(UsageError, match="5 of the 5 images of its train split hold bytes other than 0 and 255"):
        _loaded("ones_as_ones", "{}")


def test_settings_go_to_their_section_and_the_rest_to_the_model() -> None:
    assert parse_setting("train.epochs=5") == {"train": {"epochs": 5}}
    assert parse_setting("encoder.timm=resnet18") == {"model": {"encoder": {"timm": "resnet18"}}}
    assert parse_setting("train.learning-rate=1e-3") == {"train": {"learning_rate": 1e-3}}
    assert parse_setting("encoder.hidden=[10, 20]") == {"model": {"encoder": {"hidden": [10, 20]}}}


@pytest.mark.parametrize("text", ["train.epochs", "=3", "a..b=1", "seed=1", "variant=vae", "x=[1", "x={a: 1, a: 2}"])
def test_an_unreadable_setting_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_setting(text)


def test_a_misspelt_setting_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"no setting 'train\.epoch'\. Did you mean 'epochs'\?"):
        resolve("vae", settings=["train.epoch=3"])


def test_later_layers_win_and_leave_the_others() -> None:
    suite = {"train": {"epochs": 3, "clip": 1.0}}
    config = resolve("beta_vae", defaults=[suite], settings=["train.epochs=4", "beta=2"])
    assert (config.train.epochs, config.train.clip, config.model["beta"]) == (4, 1.0, 2)
    assert config.model["latent"] == registry().variants["beta_vae"].settings["latent"]
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize(
    ("variant", "one", "same"),
    [
        ("vae", "latent=1", "latent=1.0"),
        ("beta_vae", "beta=4.0", "beta=4"),
        ("beta_vae", "beta=4.0", "beta='4'"),
        ("beta_vae", "beta=0", "beta=-0.0"),
        ("vae", "encoder.hidden=[8,9]", "encoder.hidden=[8.0,9]"),
        ("vae", "likelihood.name=gaussian likelihood.sigma=2.0", "likelihood.name=gaussian likelihood.sigma=2"),
    ],
)
def test_a_number_of_a_model_is_the_same_however_it_is_written(variant: str, one: str, same: str) -> None:
    keys = set()
    for text in (one, same):
        asked = resolve(variant, settings=text.split())
        of_a_suite = resolve(variant, defaults=map(parse_setting, text.split()))
        assert asked == of_a_suite
        keys |= {fingerprint(asked.identity()), fingerprint(of_a_suite.identity())}
    assert len(keys) == 1 and keys != {fingerprint(resolve(variant, settings=["latent=3"]).identity())}


@pytest.mark.parametrize(
    ("variant", "given", "same"),
    [
        ("ada_vae", "told=null", ""),
        ("ada_vae", "changed=null", ""),  # which the entry has
        ("joint_vae", "latent=8 likelihood.start=null", "latent=8"),
        ("vae", "likelihood.name=gaussian likelihood.start=null", "likelihood.name=gaussian"),
    ],
)
def test_nothing_that_is_the_default_is_the_same_given_or_not(variant: str, given: str, same: str) -> None:
    plain = resolve(variant, settings=same.split())
    for found in (
        resolve(variant, settings=given.split()),
        resolve(variant, defaults=map(parse_setting, given.split())),
        resolve(variant, defaults=[{"model": plain.model}], settings=given.split()),
    ):
        assert found == plain and fingerprint(found.identity()) == fingerprint(plain.identity())


def test_nothing_in_place_of_a_default_or_of_what_the_entry_has_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    told = registry().variants["ada_vae"].model_copy(update={"settings": {"latent": 32, "told": "shared"}})
    monkeypatch.setitem(registry().variants, "ada_vae", told)
    assert resolve("ada_vae", settings=["told=null"]).model == {"latent": 32, "told": None}

    class Bounded(Settings):
        most: int | None = 5
        least: int | None

    monkeypatch.setattr(AdaVAE, "Settings", Bounded)
    assert canonical("ada_vae", {"most": None, "least": None}) == {"most": None, "least": None}
    assert resolve("vae", settings=["latent=null"]).model == registry().variants["vae"].settings | {"latent": None}


@pytest.mark.parametrize(
    ("one", "same"), [("n_train=100", "n_train=100.0"), ("shape=[1,8,8]", "shape=[1.0,8,8.0]"), ("seed=0", "seed=-0.0")]
)
def test_a_number_among_the_options_of_data_is_the_same_however_it_is_written(one: str, same: str) -> None:
    made = [resolve("vae", "synthetic", settings=[f"data.options.{text}"]) for text in (one, same)]
    made += [resolve("vae", "synthetic", defaults=[parse_setting(f"data.options.{text}")]) for text in (one, same)]
    own = resolve("vae", "synthetic")
    made += [measured_otherwise(own, None, own.data, [f"data.options.{text}"]) for text in (one, same)]
    assert len({canonical_json(config.data.options) for config in made}) == 1
    assert made[0] == made[1] == made[2] == made[3] and made[4] == made[5]
    assert resolve("vae", "synthetic", settings=["data.options.n_train=100.5"]).data.options == {"n_train": 100.5}
    assert resolve("vae", "synthetic", settings=["data.options.flag=yes"]).data.options == {"flag": True}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latent": 10**31}, f"setting 'latent': a whole number is at most 10^9 in size (got {10**31})."),
        ({"latent": 2**53 + 1}, f"setting 'latent': a whole number is at most 10^9 in size (got {2**53 + 1})."),
        ({"latent": 10**9 + 1}, f"setting 'latent': a whole number is at most 10^9 in size (got {10**9 + 1})."),
        ({"encoder": {"hidden": [8, 10**31]}},
         f"setting 'encoder.hidden.1': a whole number is at most 10^9 in size (got {10**31})."),
    ],
)  # fmt: skip
def test_a_number_that_no_tensor_is_as_large_as_is_refused_by_its_name(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_model("vae", **settings)
    assert str(caught.value) == said
    check_settings("vae", {"latent": 10**9})


def whole(kind: type[BaseModel], above: str = "") -> Iterator[tuple[str, bool]]:
    """The settings that are whole numbers, at any depth, and whether each is a list of them."""
    for key, field in kind.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        for part in kinds:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from whole(part, f"{above}{key}.")
        if re.search(r"\bint\b|Width", str(field.annotation)):
            yield f"{above}{key}", "tuple" in str(field.annotation)


def test_no_whole_number_of_a_run_is_beyond_what_could_be_held_or_done() -> None:
    parts = {part: RunConfig.model_fields[part].annotation for part in ("train", "evaluate")}
    run = [f"{part}.{path}" for part, kind in parts.items() for path, _ in whole(kind)]
    assert len(run) > 15 and "train.epochs" in run
    for path in run:
        if path == "evaluate.seed":
            resolve("vae", settings=[f"{path}={2**62}"])
            continue
        for value in (10**9 + 1, 10**15, 10**300):
            with pytest.raises(UsageError) as caught:
                resolve("vae", settings=[f"{path}={value}"])
            said = str(caught.value)
            assert path in said and "\n" not in said and ("at most 10^9" in said or path == "evaluate.ais")
    assert resolve("vae", settings=[f"train.epochs={10**9}"]).train.epochs == 10**9
    with pytest.raises(UsageError, match="'evaluate.gaps': a whole number is at most 10"):
        measured_otherwise(resolve("vae"), None, None, [f"evaluate.gaps={10**12}"])


@pytest.mark.parametrize("name", list_models())
def test_no_whole_number_of_a_variant_is_beyond_what_could_be_held_or_done(name: str) -> None:
    entry, found = registry().variants[name], []
    for path, several in whole(entry.load().Settings):
        for value in (10**9 + 1, 10**15, 10**300):
            settings = merge(entry.settings, parse_setting(f"{path}={[value] if several else value}")["model"])
            if path.endswith("seed") and value < 2**53:
                check_settings(name, settings)
                continue
            with pytest.raises(UsageError) as caught:
                check_settings(name, settings)
            said = str(caught.value)
            assert f"'{path}" in said and "\n" not in said
            found.append(f"at most {'2^53' if path.endswith('seed') else '10^9'} in size" in said)
    assert any(found) and ("latent", False) in whole(entry.load().Settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"likelihood": {"sigma": "no"}}, "setting 'likelihood.sigma': input should be a valid number, unable to parse "
         "string as a number, or 'learned' (got 'no')."),
        ({"likelihood": {"sigma": -1}},
         "setting 'likelihood.sigma': input should be greater than 0, or 'learned' (got -1)."),
        ({"encoder": {"hidden": [8, "x"]}}, "setting 'encoder.hidden.1': input should be a valid integer, unable to "
         "parse string as an integer (got 'x')."),
    ],
)  # fmt: skip
def test_a_setting_of_several_types_is_named_as_it_is_given(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_settings("vae", {"latent": 4} | settings)
    assert str(caught.value) == said


def test_of_a_setting_of_one_word_it_is_said_how_it_is_left_away() -> None:
    for name, setting, said in (
        ("s2_beta_vae", "label_permuted=no", "'label_permuted': input should be True, or null for none (got False)."),
        ("ada_vae", "told=no", "'told': input should be 'shared', or null for none (got False)."),
        ("vae", "prior.name=none", "'vamp', 'flow', 'energy' or 'diffusion' (got 'none')."),
    ):
        with pytest.raises(UsageError) as caught:
            check_model(resolve(name, settings=[setting]))
        assert str(caught.value).endswith(said)
    for name, setting in (("s2_beta_vae", "label_permuted=null"), ("ada_vae", "told=null")):
        check_model(resolve(name, settings=[setting]))


def test_a_setting_of_a_run_of_several_types_is_named_as_it_is_given() -> None:
    with pytest.raises(UsageError, match="^setting 'train.compile': input should be 'auto', or a valid boolean"):
        resolve("vae", settings=["train.compile=perhaps"])


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("epochs=5", " Did you mean 'train.epochs'?"), ("batch-size=5", " Did you mean 'train.batch_size'?"),
        ("nll_samples=5", " Did you mean 'evaluate.nll_samples'?"), ("binarise=none", " Did you mean 'data.binarise'?"),
        ("latnet=5", " Did you mean 'latent'?"), ("name=mnist", ""),
    ],
)  # fmt: skip
def test_a_setting_without_its_section_is_known_by_its_name(setting: str, hint: str) -> None:
    name = setting.partition("=")[0].replace("-", "_")
    with pytest.raises(UsageError, match=rf"^no setting '{name}'\.{re.escape(hint)} Known here: latent, encoder, "):
        check_model(resolve("vae", settings=[setting]))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("prior=vamp", "'prior' has settings of its own: give one of them, such as prior.name=VALUE (got 'vamp')."),
        ("train=3", "'train' has settings of its own: give one of them, such as train.epochs=VALUE (got 3)."),
        ("data.options=3", "setting 'data.options': input should be a mapping of keys to values (got 3)."),
        ("train.betas=0.9", "setting 'train.betas': input should be a list (got 0.9)."),
        ("train.betas=[0.9]", "setting 'train.betas': the list is too short (got [0.9])."),
        ("train.betas=[0, 0, 0]", "setting 'train.betas': input should be a list of at most 2 (got [0, 0, 0])."),
        ("train.schedule=stages", "setting 'train': schedule=stages and the stages come together."),
        ("train.stages=[[1]]", "setting 'train.stages.0': the list is too short (got [1])."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_setting_is_said_without_the_words_of_a_programmer(setting: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_model(resolve("vae", settings=[setting]))
    assert str(caught.value) == said


@pytest.mark.parametrize("name", list_models())
def test_the_settings_of_an_entry_are_written_as_they_are_read(name: str) -> None:
    entry = registry().variants[name]
    assert canonical_json(canonical(name, entry.settings)) == canonical_json(entry.settings)


def test_where_an_entry_writes_a_number_otherwise_all_who_give_it_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a plugin's entry, whose runs have keys with 4 in them.
    entry = registry().variants["beta_vae"].model_copy(update={"settings": {"latent": 32, "beta": 4}})
    monkeypatch.setitem(registry().variants, "beta_vae", entry)
    alone = canonical_json(resolve("beta_vae").model)
    for settings in (["beta=4.0"], ["latent=32.0"]):
        assert canonical_json(resolve("beta_vae", settings=settings).model) == alone
        assert canonical_json(resolve("beta_vae", defaults=map(parse_setting, settings)).model) == alone


@pytest.mark.parametrize("value", ["inf", ".inf", "nan", "1e400"])
def test_a_setting_of_a_model_that_is_not_finite_is_refused_for_a_file_would_have_none_of_it(value: str) -> None:
    made = resolve("vae", settings=["likelihood.name=student_t", f"likelihood.scale={value}"])
    with pytest.raises(UsageError, match="likelihood.scale"):
        check_settings("vae", made.model)
    with pytest.raises(UsageError, match=r"setting 'beta': input should be a finite number \(got (inf|nan)\)"):
        check_settings("beta_vae", resolve("beta_vae", settings=[f"beta={value}"]).model)


@pytest.mark.parametrize("wrong", [{"latent": "many"}, {"latent": 4.5}, {"letent": 4.0}])
def test_settings_that_are_refused_are_left_as_they_were_given(wrong: dict[str, object]) -> None:
    assert resolve("vae", defaults=[{"model": wrong}]).model == registry().variants["vae"].settings | wrong


def test_what_does_not_change_a_result_does_not_change_its_identity() -> None:
    base = resolve("vae")
    assert resolve("vae", settings=["train.checkpoint_seconds=1", "evaluate.rows=7"]).identity() == base.identity()
    for compiled in ("true", "false", "auto"):
        assert resolve("vae", settings=[f"train.compile={compiled}"]).identity() == base.identity()
    assert base.identity()["train"]["compile"] is False, "as in the keys of the first records"
    assert resolve("vae", settings=["train.epochs=7"]).identity() != base.identity()
    assert resolve("vae", seed=1).identity() != base.identity()
    assert RunConfig.model_validate(base.model_dump()) == base


def test_a_package_brings_a_registry_of_its_own(tmp_path: Path, monkeypatch) -> None:
    files = {
        "good": GOOD.replace("title: Mine", "title: Mine\n    train: {warmup: 3}\n    origin: somewhere"),
        "clash": GOOD.replace("mine:", "Beta-VAE:") + "  spots: {load: 'clash.spots:load', title: Spots, classes: 2}\n",
        "broken": GOOD.replace("title", "tilte"),
        "empty": None,
    }
    files["clash"] = files["clash"].replace("datasets: {}", "datasets:")
    for package, text in files.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemError('nothing is imported to list')")
        if text:
            (tmp_path / package / "registry.yaml").write_text(text)
    (tmp_path / "lonely.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint(name, name, names.REGISTRY_GROUP) for name in (*files, "lonely", "nowhere_at_all", "no.where")]
    monkeypatch.setattr(names, "entry_points", lambda group: points if group == names.REGISTRY_GROUP else [])
    registry.cache_clear()
    try:
        with pytest.warns(UserWarning) as said:
            mine = registry().variant("mine")[1]
        assert (mine.title, mine.train, mine.origin) == ("Mine", {"warmup": 3}, "plugin")
        assert registry().datasets["spots"].classes == 2
        assert registry().variants["beta_vae"].origin == "built-in" and "Beta-VAE" not in registry().variants
    finally:
        registry.cache_clear()
    told = [str(one.message) for one in said]
    assert len(told) == 6 and all("ignored" in one for one in told), told
    for part in ("broken/registry.yaml:5: variants.mine.tilte: unknown key; did you mean 'title'?",
                 "empty/registry.yaml: cannot be read", "'lonely' is not a package",
                 "'nowhere_at_all' is not a package", "'no.where' is not a package",
                 "variant 'Beta-VAE' of plugin is ignored: the name is taken"):  # fmt: skip
        assert any(part in one for one in told), (part, told)


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys\nfrom zoo import list_models\nimport benchmarks.cli\n"
        "assert 'beta_vae' in list_models('beta*'), list_models()\n"
        "from benchmarks.suite import suites\nassert suites()\n"
        "heavy = {'torch', 'numpy', 'wandb', 'matplotlib', 'sklearn'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_entry_loads_and_its_settings_are_the_class_s_own() -> None:
    for name, entry in registry().variants.items():
        kind = entry.load()
        settings = kind.Settings.model_validate(entry.settings)
        own = set(kind.Settings.model_fields)
        assert set(entry.settings) <= own, name
        assert settings.latent >= 1
        assert resolve(name).train.epochs > 0
    for entry in registry().datasets.values():
        assert callable(entry.load())
