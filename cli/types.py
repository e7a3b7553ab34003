"""Types of option values: numbers, lists, grids, and names that a registry knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from hdsgd.errors import SpecificationError

MAX_GRID = 10_000


class NumberList(click.ParamType):
    """Comma-separated numbers."""

    name = "a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a comma-separated list of numbers", param, ctx)
        if not all(math.isfinite(number) for number in numbers):
            self.fail(f"{value!r} holds a number that is not finite", param, ctx)
        return numbers


class Grid(NumberList):
    """``start:stop:count`` (both ends included) or comma-separated numbers."""

    name = "start:stop:count|a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple) or ":" not in str(value):
            return super().convert(value, param, ctx)
        try:
            start, stop, count = str(value).split(":")
            low, high, n = float(start), float(stop), int(count)
        except ValueError:
            self.fail(f"{value!r} is neither start:stop:count nor a comma-separated list", param, ctx)
        if not (math.isfinite(low) and math.isfinite(high)):
            self.fail(f"{value!r} holds a number that is not finite", param, ctx)
        if not 1 <= n <= MAX_GRID:
            self.fail(f"the count of {value!r} must be from 1 to {MAX_GRID}", param, ctx)
        # Rounded so that 0:2:21 holds 0.3 and not 0.30000000000000004.
        return tuple(round(low + (high - low) * i / max(n - 1, 1), 12) for i in range(n))

    @staticmethod
    def text(values: tuple[float, ...]) -> str:
        """Evenly spaced values as one would write them."""
        return f"{values[0]:g}:{values[-1]:g}:{len(values)}"


class Matrix(click.ParamType):
    """Rows separated by semicolons, numbers by commas: ``1,0.5;0.5,1``."""

    name = "a,b;c,d"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        rows = [NumberList().convert(row, param, ctx) for row in str(value).split(";")]
        if len({len(row) for row in rows}) > 1:
            self.fail(f"{value!r} has rows of different lengths", param, ctx)
        return tuple(rows)


class Whole(click.ParamType):
    """A whole number, also in the forms 1e9 and 10**9."""

    name = "integer"
    what = "a whole number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).replace("_", "")
        try:
            if "**" in text:
                base, power = (int(part) for part in text.split("**"))
                return base**power if 0 <= power <= 64 else self.fail(f"{value!r} is too large", param, ctx)
            return int(text)
        except ValueError:
            pass
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number == int(number)):
            self.fail(f"{value!r} is not {self.what}", param, ctx)
        return int(number)


class WholeList(Whole):
    """Comma-separated whole numbers."""

    name = "n,m,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        return tuple(Whole.convert(self, part.strip(), param, ctx) for part in str(value).split(","))


class NumberOrAuto(click.ParamType):
    """A number, or the word auto."""

    name = "float|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto" or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'", param, ctx)


class WholeOrAuto(Whole):
    """A whole number, or the word auto."""

    name = "integer|auto"
    what = "a whole number or 'auto'"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


class Name(click.ParamType):
    """A name out of several, which are looked up when they are needed: registries may be slow to import, or grow.

    Parameters
    ----------
    names : callable
        The names that ``--help`` and shell completion show.
    find : callable, optional
        Raises `SpecificationError` on a name that is none: the lookup of a registry, which also tries plugins.  By
        default the name must be one of `names`.
    words : tuple of str
        Further words that the option takes, such as "auto".
    """

    name = "name"

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        find: Callable[[str], object] | None = None,
        words: tuple[str, ...] = (),
    ) -> None:
        self.names, self.find, self.words = names, find, words

    def all_names(self) -> list[str]:
        """Words first, then names, each once."""
        return list(dict.fromkeys([*self.words, *self.names()]))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in self.words:
            return str(value)
        try:
            if self.find is not None:
                self.find(value)
            elif value not in (names := self.all_names()):
                self.fail(f"{value!r}; choose from {', '.join(names)}", param, ctx)
        except SpecificationError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.all_names() if name.startswith(incomplete)]
