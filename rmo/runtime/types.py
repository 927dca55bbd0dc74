"""Names for what is nested freely."""

from typing import Any

Tree = Any  # a pytree of arrays, or of their shapes
Json = Any  # what a JSON file holds
Row = dict[str, Any]  # one record: of a table, of a JSON-lines file
