"""Which files of a folder of campaigns would silently not be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from schemas.problems import Problem


def unread_files(root: Path) -> list[Problem]:
    """A problem for each .yml file, and for each YAML file in a folder that is not read."""
    fix = "would not be read: name it .yaml, or move it out of this folder"
    found = [_problem(root, path, ".yml", fix) for path in sorted([*root.glob("*.yml"), *root.glob("audiences/*.yml")])]
    fix = f"would not be read: move it to {root.name}/ itself (an audience to {root.name}/audiences/), or out of there"
    return [*found, *(_problem(root, path, "in a folder below", fix) for path in _files_below(root))]


def _problem(root: Path, path: Path, value: str, fix: str) -> Problem:
    return Problem(path.relative_to(root).as_posix(), "", value, fix)


def _files_below(root: Path) -> Iterator[Path]:
    """The YAML files one or two folders below that are no audiences, hidden, or of another folder of campaigns."""
    for pattern in ("*/*.yaml", "*/*.yml", "*/*/*.yaml", "*/*/*.yml"):
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root)
            folders = [folder for folder in name.parents if folder.name]
            if name.parent.as_posix() == "audiences" or any(folder.name.startswith(".") for folder in folders):
                continue
            if not any((root / folder / "engine.yaml").exists() for folder in folders):
                yield path
