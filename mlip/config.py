"""Compose Hydra configs, answering a wrong key or option with near matches."""

import re
from collections.abc import Sequence

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
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
        return f"unknown config key {key!r}{suggest(key, _keys(name))}"
    if (match := re.search(r"Key '([^']+)' is not in struct", text)) is not None:
        return f"unknown config key {match.group(1)!r}{suggest(match.group(1), _keys(name))}"
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"the overrides {list(overrides)} are not valid: {first}"


def _keys(name: str) -> list[str]:
    """Every dotted key of the default config, and the names of its groups."""
    config = OmegaConf.to_container(compose(name), resolve=False)
    found: list[str] = []

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                found.append(f"{prefix}{key}")
                walk(value, f"{prefix}{key}.")

    walk(config, "")
    return found


__all__ = ["ConfigCompositionException", "compose", "options"]
