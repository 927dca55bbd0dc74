"""The wandb project's dashboard, made in code: charts of what `--wandb` mirrors (names: mirror.py)."""

from typing import Any

from rmo.report.run_report import DRAWINGS
from rmo.runtime.files import RunError

# Curves of finished stages: (title, x, pattern of metrics); a line per run and member.
CURVES = [
    (f"{name}: {scores.replace('|', ' and ')} against {versus}", f"{kind}/curve/{x}", rf"^{kind}/curve/({scores})/\d+$")
    for kind, name in (("bon", "Best-of-n"), ("ppo", "PPO"))
    for x, versus, scores in (
        ("sqrt_kl", "sqrt(KL)", "gold"), ("sqrt_kl", "sqrt(KL)", "proxy"), ("kl", "KL", "gold|proxy"),
    )
]  # fmt: skip
# Section -> line charts: (title, x, metrics); a line per run and metric, of several members their mean.
LINES = {
    "Reward models": [(n, "Step", [f"proxies/{m}"]) for m, n in (
        ("loss", "Training loss"), ("accuracy", "Training accuracy"), ("grad_norm", "Gradient norm"),
    )],
    "PPO health": [(name, "ppo/iteration", [f"ppo/{metric}"]) for metric, name in (
        ("kl", "KL from the initial policy, held-out prompts"), ("gold", "Gold"), ("proxy", "Proxy"),
        ("entropy", "Entropy per token"), ("length", "Response length"), ("last_clip_fraction", "Clip fraction"),
        ("last_approx_kl", "KL of an update, estimated"), ("last_policy_loss", "Policy loss"),
        ("last_critic_loss", "Value loss"), ("last_explained_variance", "Variance that the critic explains"),
        ("last_sampler_gap", "Largest gap between sampler's and trainer's log-probability"),
        ("last_first_ratio", "Ratio before the first update: 1"),
    )],
    "Throughput": [(name, "Step", [f"speed/{m}" for m in metrics]) for name, metrics in (
        ("Tokens per second", ["tokens_per_second"]), ("Share of peak FLOP/s", ["utilisation"]),
        ("Peak memory, bytes", ["peak_memory"]), ("Seconds per row of the log", ["seconds"]),
        ("Seconds waiting for the device", ["wait"]), ("Seconds making batches", ["batch"]),
        ("PPO, samples: seconds by part", ["iterate", "read", "sample", "score", "update"]),
    )],
    "Policy and gold": [(name, "Step", [metric]) for metric, name in (
        ("sft/loss", "Loss of the initial policy"), ("gold/loss", "Loss of gold"), ("sft/grad_norm", "Gradient norm"),
    )],
}  # fmt: skip
# Of finished reward models, against their size: (title, metric).
POINTS = [("Validation loss by size", "proxies/validation_loss"),
          ("Validation accuracy by size", "proxies/validation_accuracy")]  # fmt: skip
SIZE = "proxies/params/non_embedding"


class DashboardError(RunError):
    """Why there is no dashboard and what to do about it, in one line."""


def workspace(project: str, entity: str = "") -> Any:
    """A `wandb_workspaces.workspaces.Workspace`; nothing is sent.

    Raises:
      DashboardError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise DashboardError(f"{error}: pip install wandb-workspaces") from error

    def section(name: str, *panels: Any) -> Any:
        return ws.Section(name=name, panels=list(panels), is_open=True)

    curves = [wr.LinePlot(title=title, x=x, metric_regex=pattern) for title, x, pattern in CURVES]
    sections = [section("Overoptimization", *curves)]
    for name, charts in LINES.items():
        panels: list[Any] = [wr.LinePlot(title=title, x=x, y=list(y)) for title, x, y in charts]
        if name == "Reward models":
            panels += [wr.ScatterPlot(title=title, x=SIZE, y=y, log_x=True) for title, y in POINTS]
        sections.append(section(name, *panels))
    pages = ["report", *(d.name for d in DRAWINGS)]
    sections.append(section("Report", wr.MediaBrowser(media_keys=[f"report/{page}" for page in pages], num_columns=2)))
    settings = ws.WorkspaceSettings(max_runs=100)
    return ws.Workspace(entity=entity, project=project, name="rmo", sections=sections, settings=settings)


def definition(made: Any) -> dict[str, Any]:
    """A workspace as wandb stores it."""
    return made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def save(project: str, entity: str) -> str:
    """Make the dashboard, a new view of the project; returns its address.

    Raises:
      DashboardError: there is no account, or wandb cannot be reached or refuses.
    """
    made = workspace(project, entity)
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise DashboardError("wandb knows no account here: `wandb login` first, or write the definition with --out")
    try:
        made.entity = entity or wandb.Api().default_entity
        return made.save().url
    except Exception as error:
        line = " ".join(str(error).split())[:300] or type(error).__name__
        raise DashboardError(f"cannot save the dashboard of {project}: {line}") from error
