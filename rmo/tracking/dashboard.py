"""The wandb project's dashboard, made in code: charts of what `--wandb` mirrors (names: mirror.py)."""

from typing import Any

from rmo.methods import method as methods
from rmo.report.figures.drawing import drawings
from rmo.runtime.files import RunError

# Section -> line charts of stages: (title, x, metrics); a line per run and metric, of several members their mean.
LINES: dict[str, list[tuple[str, str, list[str]]]] = {
    "Reward models": [
        ("Training loss", "Step", ["proxies/loss"]),
        ("Training accuracy", "Step", ["proxies/accuracy"]),
        ("Gradient norm", "Step", ["proxies/grad_norm"]),
    ],
    "Throughput": [
        ("Tokens per second", "Step", ["speed/tokens_per_second"]),
        ("Share of peak FLOP/s", "Step", ["speed/utilisation"]),
        ("Peak memory, bytes", "Step", ["speed/peak_memory"]),
        ("Seconds per row of the log", "Step", ["speed/seconds"]),
        ("Seconds waiting for the device", "Step", ["speed/wait"]),
        ("Seconds making batches", "Step", ["speed/batch"]),
        (
            "Seconds by part",
            "Step",
            ["speed/iterate", "speed/read", "speed/sample", "speed/score", "speed/update"],
        ),
    ],
    "Policy and gold": [
        ("Loss of the initial policy", "Step", ["sft/loss"]),
        ("Loss of gold", "Step", ["gold/loss"]),
        ("Gradient norm", "Step", ["sft/grad_norm"]),
    ],
}


def curve_charts() -> list[tuple[str, str, str]]:
    """Curves of finished stages: (title, x, pattern of metrics); a line per run and member."""
    out = []
    for method in methods.every():
        name = method.short[0].upper() + method.short[1:]
        for x, versus, scores in (
            ("sqrt_kl", "sqrt(KL)", "gold"),
            ("sqrt_kl", "sqrt(KL)", "proxy"),
            ("kl", "KL", "gold|proxy"),
        ):
            title = f"{name}: {scores.replace('|', ' and ')} against {versus}"
            out.append((title, f"{method.name}/curve/{x}", rf"^{method.name}/curve/({scores})/\d+$"))
    return out


def line_charts() -> dict[str, list[tuple[str, str, list[str]]]]:
    """`LINES`, and the health of every method that logs any."""
    health = {
        f"{method.short} health": [
            (title, f"{method.name}/{method.axis}", [f"{method.name}/{metric}"]) for metric, title in method.charts
        ]
        for method in methods.every()
        if method.charts
    }
    return {**health, **LINES}


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

    curves = [wr.LinePlot(title=title, x=x, metric_regex=pattern) for title, x, pattern in curve_charts()]
    sections = [section("Overoptimization", *curves)]
    for name, charts in line_charts().items():
        panels: list[Any] = [wr.LinePlot(title=title, x=x, y=list(y)) for title, x, y in charts]
        if name == "Reward models":
            panels += [wr.ScatterPlot(title=title, x=SIZE, y=y, log_x=True) for title, y in POINTS]
        sections.append(section(name, *panels))
    pages = ["report", *(d.name for d in drawings())]
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
