"""Names to entries: `registry.yaml` first, then plugins. Nothing here imports torch, so listing is instant."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation

from zoo.errors import UsageError, find, fold
from zoo.plain_yaml import read_yaml
from zoo.settings import Frozen

# Entry points of packages: of a class, of a loading function, and of a package that has a registry.yaml of its own.
BUILT_IN = "built-in"
VARIANT_GROUP, DATASET_GROUP, REGISTRY_GROUP = "zoo.variants", "zoo.datasets", "zoo.registry"
FILE = "registry.yaml"
# Files and folders are called after them.
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$"
T = TypeVar("T", bound=BaseModel)


class Entry(Frozen):
    model_config = ConfigDict(populate_by_name=True)


class Paper(Entry):
    """Where a variant comes from."""

    title: str
    authors: str
    year: int = Field(ge=1900, le=2100)
    url: str


class Published(Entry):
    """A number somebody printed: shown beside ours, with whether it was made with the same recipe, and of which
    ``binarise`` of the data (as `DataConfig` has it) where it depends on that."""

    dataset: str
    metric: str
    value: float
    stderr: float | None = None
    source: str
    mark: Literal["R", "2", "B"] = Field(description="R read in its source, 2 read at second hand, B quoted")
    same_recipe: bool = False
    binarise: Literal["dynamic", "threshold", "none"] | None = None
    note: str | None = None


class VariantEntry(Entry):
    """One model: the class to load, where it was published, its default settings and what it can do."""

    target: str = Field(alias="class", pattern=r"^[\w.]+:\w+$")
    title: str
    family: str = "plugin"
    summary: str = ""
    paper: Paper | None = None
    code: str | None = None
    settings: dict[str, Any] = {}
    train: dict[str, Any] = Field({}, description="what its recipe changes in the training defaults")
    provides: tuple[str, ...] = ()
    taught: str = Field("", description="what its training is shown beside images; its numbers are of images alone")
    taught_by: dict[str, str] = Field({}, description="what more it is shown where it has a setting, by that setting")
    published: tuple[Published, ...] = ()
    origin: str = BUILT_IN

    def load(self) -> type:
        """Import and return the class; raises `UsageError` as `load_target` does, and where it is no variant's."""
        from zoo.models.base import VAE, Settings

        kind = load_target(self.target)
        if not (isinstance(kind, type) and issubclass(kind, VAE)):
            raise UsageError(f"'{self.target}' is no variant: its class has to be one of zoo.models.base.VAE.")
        if not (isinstance(kind.Settings, type) and issubclass(kind.Settings, Settings)):
            raise UsageError(f"the Settings of '{self.target}' have to be a class of zoo.models.base.Settings.")
        try:
            kind.Settings.model_rebuild()  # nothing where they are whole
        except PydanticUndefinedAnnotation as error:
            said = f"the Settings of '{self.target}' name the type '{error.name}', and there is none."
            raise UsageError(said) from None
        return kind


class DatasetEntry(Entry):
    """One data set: the function that loads it and what a model must know of it before it is loaded."""

    target: str = Field(alias="load", pattern=r"^[\w.]+:\w+$")
    title: str
    summary: str = ""
    shape: tuple[int, int, int] | None = Field(None, description="none: known once it is loaded")
    support: Literal["binary", "8-bit", "real"] = "8-bit"
    binarise: Literal["dynamic", "threshold", "none"] = Field("none", description="what a run does unless told")
    classes: int = 0
    attributes: int = 0
    factors: Literal["exact", "attributes", "measured"] | None = None
    options: dict[str, Any] = {}
    asset: str | None = Field(None, description="what `zoo fetch` gets for it, where that has another name")
    licence: str = ""
    private: bool = Field(False, description="no copies: pictures stay with the run, off the board and off W&B")
    url: str = ""
    origin: str = BUILT_IN

    def load(self) -> Any:
        """Import and return the loading function."""
        return load_target(self.target)


class Registry(Entry):
    """Everything that has a name."""

    schema_: Literal[1] = Field(alias="schema")
    variants: dict[Annotated[str, Field(pattern=NAME)], VariantEntry] = {}
    datasets: dict[Annotated[str, Field(pattern=NAME)], DatasetEntry] = {}

    def variant(self, name: str) -> tuple[str, VariantEntry]:
        """The registered name and its entry. A dash works for an underscore.

        Raises:
            UsageError: there is no such variant; the message has the nearest name.
        """
        return find("variant", name, self.variants, "zoo list")

    def dataset(self, name: str) -> tuple[str, DatasetEntry]:
        """The registered name and its entry; raises `UsageError` as `variant` does."""
        return find("dataset", name, self.datasets, "zoo list datasets")

    def private(self, dataset: str) -> bool:
        """Whether pictures of this data, and what was learnt to look like it, are not to be passed on."""
        return dataset in self.datasets and self.datasets[dataset].private


def registry_path() -> Path:
    """`registry.yaml`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / FILE
    return shipped if shipped.exists() else package.parent / FILE


@functools.cache
def registry() -> Registry:
    """The built-in registry with the plugins that are installed. Read once a process."""
    built_in = read_yaml(registry_path(), Registry)
    files = list(_files())
    offered = [(origin, file.variants) for origin, file in files]
    variants = built_in.variants | _plugins(VARIANT_GROUP, "variant", VariantEntry, built_in.variants, offered)
    offered = [(origin, file.datasets) for origin, file in files]
    datasets = built_in.datasets | _plugins(DATASET_GROUP, "data set", DatasetEntry, built_in.datasets, offered)
    return built_in.model_copy(update={"variants": variants, "datasets": datasets})


def load_target(target: str) -> Any:
    """The object that ``module:name`` names.

    Raises:
        UsageError: there is no such module, or it has no such name. An import error inside the module is raised as it
            is, because it says what is broken.
    """
    module, _, name = target.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise UsageError(f"there is no module '{error.name}', which the registry names as '{target}'.") from None
        raise
    if not hasattr(loaded, name):
        raise UsageError(f"module '{module}' has no '{name}', which the registry names as '{target}'.")
    return getattr(loaded, name)


def _files() -> Iterator[tuple[str, Registry]]:
    """The origin and the registry of every package that has a `registry.yaml`."""
    for point in entry_points(group=REGISTRY_GROUP):
        try:
            spec = importlib.util.find_spec(point.value)
        except (ImportError, ValueError):
            spec = None
        folders = spec.submodule_search_locations if spec else None
        try:
            if not folders:
                raise UsageError(f"'{point.value}' is not a package")
            yield _origin(point), read_yaml(Path(folders[0]) / FILE, Registry)
        except UsageError as error:
            warnings.warn(f"the registry of {_origin(point)} is ignored: {str(error).rstrip('.')}.", stacklevel=2)


def _plugins(
    group: str, kind: str, model: type[T], built_in: Mapping[str, T], files: Iterable[tuple[str, Mapping[str, T]]]
) -> dict[str, T]:
    taken = {fold(name) for name in built_in}
    found: dict[str, T] = {}
    of_files = [
        (name, origin, entry.model_copy(update={"origin": origin}))
        for origin, entries in files
        for name, entry in entries.items()
    ]
    for name, origin, entry in (*of_files, *_named(group, kind, model)):
        if fold(name) in taken:
            warnings.warn(f"{kind} '{name}' of {origin} is ignored: the name is taken.", stacklevel=2)
            continue
        taken.add(fold(name))
        found[name] = entry
    return found


def _named(group: str, kind: str, model: type[T]) -> Iterator[tuple[str, str, T]]:
    # What has a name and a target, and nothing else.
    for point in entry_points(group=group):
        origin = _origin(point)
        try:
            yield point.name, origin, model(target=point.value, title=point.name, origin=origin)
        except ValidationError:
            message = f"{kind} '{point.name}' of {origin} is ignored: '{point.value}' is not module:name."
            warnings.warn(message, stacklevel=2)


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "plugin"
