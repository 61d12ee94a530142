"""A hook of hatchling's: the URLs of the project, from the address of its repository, where the environment names one."""

from __future__ import annotations

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ProjectUrls(MetadataHookInterface):
    """Sets ``urls`` from the variable ``ANYSCHED_REPOSITORY``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set them; without the variable, there are none."""
        repository = os.environ.get("ANYSCHED_REPOSITORY", "").rstrip("/")
        if not repository:
            metadata["urls"] = {}
            return
        metadata["urls"] = {
            "Repository": repository,
            "Documentation": f"{repository}/tree/main/docs",
            "Issues": f"{repository}/issues",
            "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        }
