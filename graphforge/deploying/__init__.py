"""Deploy configs: what is asked of a compilation, in a file: our own TOML, or a config of MMDeploy's."""

from __future__ import annotations

from graphforge.deploying.config import DeployConfig, InputRange
from graphforge.deploying.reading import preset_names, preset_text, read_deploy_config

__all__ = ["DeployConfig", "InputRange", "preset_names", "preset_text", "read_deploy_config"]
