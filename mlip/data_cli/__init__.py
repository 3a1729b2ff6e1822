"""``mlip data``: inspect, doctor, pull, select, convert, label, sample."""

from collections.abc import Sequence

from mlip.data_cli import verbs
from mlip.data_cli.help_texts import VERBS
from mlip.errors import suggest


def run(arguments: Sequence[str]) -> int:
    """Run one verb and return the exit code.

    Raises:
        ValueError: For an unknown verb or option, or bad input.
    """
    asked = any(word in ("-h", "--help") for word in arguments)
    name = next((word for word in arguments if not word.startswith("-")), "")
    if asked and not name:
        print(overview())
        return 0
    if name not in VERBS:
        raise ValueError(
            f"mlip data has no verb {name!r}{suggest(name, VERBS)}"
            if name
            else f"mlip data: say one of {', '.join(VERBS)}  (mlip data --help)"
        )
    if asked:
        print(VERBS[name].help(name))
        return 0
    rest = list(arguments)
    rest.remove(name)
    return getattr(verbs, name)(rest)


def overview() -> str:
    """Return the page of ``mlip data --help``."""
    first = {name: verb.summary.split(". ")[0].rstrip(".") for name, verb in VERBS.items()}
    lines = [f"  mlip data {name:<8} {told}" for name, told in first.items()]
    return "\n".join([*lines, "", "Each explains itself: mlip data VERB --help"])
