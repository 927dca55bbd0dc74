"""Functions that a config names, `module:function`: a judge, or what rows come from. Nothing is ever fetched."""

import importlib
import os
import sys
from collections.abc import Callable

from rmo.runtime import errors
from rmo.worlds.packed_text import one_line


class FunctionError(ValueError):
    """Why a name stands for no function, in one line."""


def function_of(name: str) -> Callable[..., object]:
    """The function `module:function` of an installed package, or of a file in the working directory.

    Raises:
      FunctionError: there is no such module or function, or importing the module fails.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise FunctionError("it must be module:function")
    try:
        module = imported(module_name)
    except ModuleNotFoundError as error:
        if error.name is None:  # a module that says in its own words what it lacks
            raise FunctionError(one_line(error)) from error
        places = "among the installed packages or in the working directory"
        raise FunctionError(f"Python finds no module {error.name} {places}: install it, or mend the name") from error
    except Exception as error:
        raise FunctionError(f"importing {module_name} fails: {type(error).__name__}: {one_line(error)}") from error
    if not hasattr(module, attribute):
        raise FunctionError(f"{module_name} has no {attribute}{errors.nearest(attribute, dir(module))}")
    found = getattr(module, attribute)
    if not callable(found):
        raise FunctionError(f"{attribute} of {module_name} is a {type(found).__name__}, and no function")
    return found


def imported(name: str) -> object:
    """A module, for which the working directory is looked at last, as `python -m` looks at it first."""
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    finally:
        if added:
            sys.path.remove(here)
