"""Methods, rewards, worlds, claims and figures that live outside this package.

A Python file that registers something is named in RMO_PLUGINS (several with the system's path separator), and every
command knows what it registers: `RMO_PLUGINS=my_method.py rmo report runs/tiny`. A config file may register things
itself; but `rmo watch` and `rmo report` read no config file.
"""

import importlib.util
import os
import sys
from pathlib import Path

from rmo.config import ConfigError
from rmo.runtime import errors


def load() -> None:
    """Import every file that RMO_PLUGINS names, once.

    Raises:
      ConfigError: there is no such file, or it fails; says where.
    """
    for name in filter(None, os.environ.get("RMO_PLUGINS", "").split(os.pathsep)):
        path = Path(name)
        module_name = f"rmo_plugin_{path.stem}"
        if module_name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(module_name, path) if path.is_file() else None
        if spec is None or spec.loader is None:
            raise ConfigError(f"RMO_PLUGINS names {path}: there is no such Python file{errors.instead(path)}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigError(f"RMO_PLUGINS: {type(error).__name__} in {path}: {error}") from error
