"""Compose Hydra configs, answering a wrong key or option with near matches."""

import re
from collections.abc import Sequence

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlip import paths
from mlip.errors import suggest


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config ``configs/<name>.yaml`` with Hydra overrides applied.

    Args:
        name: Entry point, for instance ``train``.
        overrides: Hydra overrides such as ``model=2g`` or ``trainer.max_epochs=5``.

    Raises:
        ValueError: For an unknown key or option, naming it and its near matches.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(paths.content("configs")), version_base="1.3", job_name=name):
        try:
            return hydra_compose(name, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_explain(name, error, overrides)) from error


def require_complete(config: DictConfig) -> None:
    """Refuse a config in which a value that only the user knows is still missing (``???``).

    Raises:
        ValueError: Naming every missing key.
    """
    content = _flat(OmegaConf.to_container(config, resolve=False))
    missing = sorted(key for key, value in content.items() if value == "???")
    if missing:
        raise ValueError(
            f"missing: {', '.join(missing)}; give {' '.join(f'{key}=…' for key in missing)} "
            "(for a file of yours, mlip data inspect FILE shows its labels and units)"
        )


def options(group: str) -> list[str]:
    """Return the names one may type for a config group: the files of ``configs/<group>/``."""
    return sorted(path.stem for path in (paths.content("configs") / group).glob("*.yaml"))


def _explain(name: str, error: Exception, overrides: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, MissingConfigException):
        missing = error.missing_cfg_file or ""
        group, _, option = str(missing).rpartition("/")
        known = list(error.options or options(group))
        return f"there is no option {option!r} for {group!r}{suggest(option, known)}"
    if (match := re.search(r"[Cc]ould not override '([^']+)'", text)) is not None:
        key = match.group(1)
        inner = re.search(rf"full_key: {re.escape(key)}\.(\S+)", str(error.__cause__))
        if inner is not None:
            return (
                f"{key} has no {inner[1]!r}, and a mapping given is added to what is there: to put "
                f"another in its place, give '~{key}' '+{key}={{…}}'"
            )
        return f"unknown config key {key!r}{suggest(key, _keys(name, overrides))}"
    if (match := re.search(r"Key '([^']+)' is not in struct", text)) is not None:
        return f"unknown config key {match[1]!r}{suggest(match[1], _keys(name, overrides))}"
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"the overrides {list(overrides)} are not valid: {first}"


def _keys(name: str, overrides: Sequence[str]) -> list[str]:
    """Every dotted key of the config with the options that were chosen for its groups."""
    groups = [word for word in overrides if (paths.content("configs") / _group(word)).is_dir()]
    try:
        config = compose(name, groups)
    except ValueError:  # something else is wrong with one of them
        config = compose(name)
    return list(_flat(OmegaConf.to_container(config, resolve=False)))


def _group(override: str) -> str:
    return override.partition("=")[0].partition("@")[0] if "=" in override else "none"


def _flat(node: object, prefix: str = "") -> dict[str, object]:
    """Every key of a nested mapping by its dotted name."""
    found: dict[str, object] = {}
    if isinstance(node, dict):
        for key, value in node.items():
            found[f"{prefix}{key}"] = value
            found |= _flat(value, f"{prefix}{key}.")
    return found
