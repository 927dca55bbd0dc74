"""An experiment is one frozen value."""

from rmo.config.experiment import (
    PPO as PPO,
)
from rmo.config.experiment import (
    SFT as SFT,
)
from rmo.config.experiment import (
    Against as Against,
)
from rmo.config.experiment import (
    BestOfN as BestOfN,
)
from rmo.config.experiment import (
    Comparisons as Comparisons,
)
from rmo.config.experiment import (
    ConfigError as ConfigError,
)
from rmo.config.experiment import (
    Experiment as Experiment,
)
from rmo.config.experiment import (
    Fits as Fits,
)
from rmo.config.experiment import (
    Gold as Gold,
)
from rmo.config.experiment import (
    Model as Model,
)
from rmo.config.experiment import (
    Optimizer as Optimizer,
)
from rmo.config.experiment import (
    OtherPolicy as OtherPolicy,
)
from rmo.config.experiment import (
    Proxies as Proxies,
)
from rmo.config.experiment import (
    Recipe as Recipe,
)
from rmo.config.experiment import (
    Sweep as Sweep,
)
from rmo.config.experiment import (
    Text as Text,
)
from rmo.config.experiment import (
    World as World,
)
from rmo.config.experiment import (
    WorldConfig as WorldConfig,
)
from rmo.config.experiment import (
    digest as digest,
)
from rmo.config.experiment import (
    to_json as to_json,
)
