"""What a verb takes, its options and its help; options are ``key=value``, as Hydra writes them."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from mlip.errors import suggest

_WIDTH = 110
_INDENT = 18


@dataclass(frozen=True)
class Given:
    """Arguments of one call.

    Args:
        paths: What stands without ``=``, in order.
        values: Text of each option.
        flags: Words that begin with a dash.
    """

    paths: tuple[str, ...]
    values: Mapping[str, str]
    flags: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str, default: str = "") -> str:
        """Return an option as it was written."""
        return self.values.get(name, default)

    def words(self, name: str) -> list[str]:
        """Return the words of a list such as ``Li,P,S``."""
        inside = self.text(name).strip("[]").replace(" ", "")
        return [word for word in inside.split(",") if word]

    def whole(self, name: str, default: int | None = None) -> int | None:
        """Return a whole number.

        Raises:
            ValueError: If it is none.
        """
        text = self.values.get(name)
        if text is not None and not text.isdigit():
            raise ValueError(f"{name} is {text!r}: give a whole number")
        return default if text is None else int(text)

    def number(self, name: str, default: float) -> float:
        """Return a number.

        Raises:
            ValueError: If it is none.
        """
        try:
            return float(self.values.get(name, default))
        except ValueError:
            raise ValueError(f"{name} is {self.values[name]!r}: give a number") from None

    def truth(self, name: str) -> bool:
        """Return whether an option is ``true``.

        Raises:
            ValueError: If it is neither ``true`` nor ``false``.
        """
        text = self.text(name, "false").lower()
        if text not in ("true", "false"):
            raise ValueError(f"{name} is {self.values[name]!r}: write true or false")
        return text == "true"

    def units(self) -> str | Mapping[str, Any] | None:
        """Return ``units``: a word or a mapping; None if it is not given.

        Raises:
            ValueError: If it cannot be read.
        """
        return _content("units", self.text("units", "null"), "ase, or a mapping in quotes")

    def reader(self) -> dict[str, Any]:
        """Return the options of the format's reader, ``options={energy: corrected}``.

        Raises:
            ValueError: If they are no mapping of names.
        """
        text = self.text("options", "{}")
        found = _content("options", text, "a mapping, such as {energy: corrected}")
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise ValueError(f"options is {text!r}: write a mapping, such as {{energy: corrected}}")
        return found


@dataclass(frozen=True)
class Verb:
    """One verb: its purpose and what it takes, each with a sentence for the help.

    Args:
        summary: What it does.
        takes: Paths or names, in order.
        options: By an example of use, ``limit=1000``.
        flags: Words with dashes.
        notes: Anything else to know.
    """

    summary: str
    takes: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""

    @property
    def names(self) -> list[str]:
        """The options' names."""
        return [example.split("=", 1)[0] for example in self.options]

    def parse(self, name: str, arguments: Sequence[str]) -> Given:
        """Return the arguments of a call.

        Raises:
            ValueError: For an unknown option or flag, with near matches, or a path too many or few.
        """
        flags = [argument for argument in arguments if argument.startswith("-")]
        rest = [argument for argument in arguments if not argument.startswith("-")]
        paths = tuple(argument for argument in rest if "=" not in argument)
        values = dict(argument.split("=", 1) for argument in rest if "=" in argument)
        unknown = [flag for flag in flags if flag not in self.flags]
        unknown += sorted(set(values) - set(self.names))
        if unknown:
            known = [*self.flags, *self.names]
            raise ValueError(
                f"mlip data {name} has no option {unknown[0]!r}{suggest(unknown[0], known)}"
            )
        if len(paths) != len(self.takes):
            told = f": {' '.join(paths)}" if paths else ""
            raise ValueError(
                f"mlip data {name} takes {' '.join(self.takes)}, but {len(paths)} "
                f"{'is' if len(paths) == 1 else 'are'} given{told}  (mlip data {name} --help)"
            )
        return Given(paths, values, frozenset(flags))

    def help(self, name: str) -> str:
        """Return the page of ``mlip data NAME --help``."""
        optional = [f"[{example}]" for example in (*self.options, *self.flags)]
        usage = textwrap.fill(
            " ".join([f"mlip data {name}", *self.takes, *optional]),
            _WIDTH,
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
            break_long_words=False,
        )
        rows = [*self.takes.items()]
        rows += [(example.split("=", 1)[0], told) for example, told in self.options.items()]
        rows += [*self.flags.items()]
        table = "\n".join(_row(left, right) for left, right in rows)
        parts = (
            usage,
            textwrap.fill(self.summary, _WIDTH),
            table,
            textwrap.fill(self.notes, _WIDTH),
        )
        return "\n\n".join(part for part in parts if part)


def _row(name: str, told: str) -> str:
    paragraphs = [
        textwrap.fill(
            line,
            _WIDTH,
            initial_indent=" " * _INDENT,
            subsequent_indent=" " * _INDENT,
            break_on_hyphens=False,
            break_long_words=False,
        )
        for line in told.splitlines()
    ]
    return f"  {name:<{_INDENT - 2}}" + "\n".join(paragraphs)[_INDENT:]


def _content(name: str, text: str, wanted: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is {text!r}, which cannot be read: write {wanted}") from error
