"""Recipes on the command line: a function that returns a configuration is a subcommand whose flags are its fields."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import tyro

Config = TypeVar("Config")


def described(recipes: Iterable[Callable[[], Config]]) -> dict[str, tuple[Config, str]]:
    """Name -> (configuration, first line of the docstring)."""
    return {recipe.__name__: (recipe(), summary(recipe)) for recipe in recipes}


def summary(recipe: Callable[[], Any]) -> str:
    """First line of the docstring."""
    return (recipe.__doc__ or "").splitlines()[0]


def choice(recipes: Mapping[str, tuple[Any, str]]) -> Any:
    """What annotates a verb's argument, `recipe: Annotated[TheConfig, choice(RECIPES)]`: a subcommand for each recipe,
    whose flags are the fields of its configuration."""
    subcommands = tyro.extras.subcommand_type_from_defaults(
        {name: config for name, (config, _) in recipes.items()},
        {name: text for name, (_, text) in recipes.items()},
        prefix_names=False,
    )
    return tyro.conf.arg(name="", constructor=subcommands)
