"""Checkpoints, until the split lands."""

from rmo.runtime.files import Checkpoints as Checkpoints
