"""Which code decides a number of the quality benchmark: while none of it has changed, the number is kept."""

import ast
import functools
import hashlib
import importlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
SILENT = {  # imported by what decides, and without a say: the judged images and the trained weights are hashed themselves
    *("data.checking", "data.demo", "data.listing", "data.reading", "data.training"),
    *("models.discriminators", "models.losses", "models.patchnce"),
    *("utils.errors", "utils.files", "utils.interrupts", "utils.result_files"),
}


@functools.cache
def modules_behind(module):
    """A module of this project and all that it and they import of it, but for SILENT ones and what these import, by name."""
    found, left = {}, [module.__name__]
    while left:
        name = left.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name in found or name in SILENT or not path.is_file():
            continue
        found[name] = importlib.import_module(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                left += [node.module, *(f"{node.module}.{part.name}" for part in node.names)]
            elif isinstance(node, ast.Import):
                left += [part.name for part in node.names]
    return [found[name] for name in sorted(found)]


def hash_of(modules, settings):
    """Hash of the source of modules and of plain settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for module in modules:
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()
