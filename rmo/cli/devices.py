"""The devices that commands compute on."""

import os
import sys

from rmo import config
from rmo.runtime import errors, hosts


def count() -> int:
    """How many devices JAX has; warns where the machine has an accelerator that JAX does not see.

    Raises:
      ConfigError: JAX has none of the kind that JAX_PLATFORMS asks for.
    """
    import jax

    try:
        found = jax.device_count()
    except Exception as error:  # for a platform that is not installed JAX may raise an assertion without a message
        asked = os.environ.get("JAX_PLATFORMS", "")
        advice = "unset it, or install what it needs (EXTRAS=dev,cuda or dev,tpu)"
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise config.ConfigError(
            f"JAX cannot use the devices that JAX_PLATFORMS={asked} asks for: {advice}: {line}"
        ) from error
    if jax.default_backend() == "cpu" and hosts.writer() and (line := errors.overlooked()):
        print(f"rmo: {line}", file=sys.stderr)
    return found
