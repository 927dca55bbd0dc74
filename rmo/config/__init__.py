"""An experiment is one frozen value: every dataclass of it can be imported from here."""

from rmo.config.experiment import (
    PPO,
    SFT,
    Against,
    BestOfN,
    Combined,
    Comparisons,
    ConfigError,
    Experiment,
    Fits,
    Gold,
    MethodSettings,
    Optimizer,
    OtherPolicy,
    Proxies,
    Recipe,
    Sweep,
    Text,
    World,
    to_json,
)
from rmo.config.identity import digest
from rmo.config.model import Model

__all__ = [
    "PPO",
    "SFT",
    "Against",
    "BestOfN",
    "Combined",
    "Comparisons",
    "ConfigError",
    "Experiment",
    "Fits",
    "Gold",
    "MethodSettings",
    "Model",
    "Optimizer",
    "OtherPolicy",
    "Proxies",
    "Recipe",
    "Sweep",
    "Text",
    "World",
    "digest",
    "to_json",
]
