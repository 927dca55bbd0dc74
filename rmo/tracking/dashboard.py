"""The wandb project's dashboard, made in code: charts of what `--wandb` mirrors (names: wandb_mirror.py)."""

from typing import TYPE_CHECKING

from rmo.methods import method as methods
from rmo.report.figures.drawing import drawings
from rmo.runtime.files import Row, RunError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

Chart = tuple[str, str, list[str]]  # title, x, metrics

# Section -> line charts of stages; a line per run and metric, of several members their mean.
LINES: dict[str, list[Chart]] = {
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


# Of finished reward models, against their size: (title, metric).
POINTS = [
    ("Validation loss by size", "proxies/validation_loss"),
    ("Validation accuracy by size", "proxies/validation_accuracy"),
]
SIZE = "proxies/params/non_embedding"


class DashboardError(RunError):
    """Why there is no dashboard and what to do about it, in one line."""


def curve_charts() -> list[tuple[str, str, str]]:
    """Curves of finished stages: (title, x, pattern of metrics); a line per run and member."""
    out = []
    for method in methods.every():
        name, curve = method.short[0].upper() + method.short[1:], f"{method.name}/curve"
        out += [
            (f"{name}: gold against sqrt(KL)", f"{curve}/sqrt_kl", rf"^{curve}/(gold)/\d+$"),
            (f"{name}: proxy against sqrt(KL)", f"{curve}/sqrt_kl", rf"^{curve}/(proxy)/\d+$"),
            (f"{name}: gold and proxy against KL", f"{curve}/kl", rf"^{curve}/(gold|proxy)/\d+$"),
        ]
    return out


def health_charts(method: methods.Method) -> list[Chart]:
    """Line charts of a method's log."""
    return [(title, f"{method.name}/{method.axis}", [f"{method.name}/{metric}"]) for metric, title in method.charts]


def line_charts() -> dict[str, list[Chart]]:
    """`LINES`, and the health of every method that logs any."""
    health = {f"{method.short} health": health_charts(method) for method in methods.every() if method.charts}
    return {**health, **LINES}


def workspace(project: str, entity: str = "") -> "Workspace":
    """The view of a project; nothing is sent.

    Raises:
      DashboardError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise DashboardError(f"{error}: pip install wandb-workspaces") from error

    sections = [curve_section(), *(line_section(name, charts) for name, charts in line_charts().items())]
    settings = ws.WorkspaceSettings(max_runs=100)
    return ws.Workspace(
        entity=entity, project=project, name="rmo", sections=[*sections, report_section()], settings=settings
    )


def curve_section() -> "Section":
    """Gold and proxy against KL, of every method."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    panels = [wr.LinePlot(title=title, x=x, metric_regex=pattern) for title, x, pattern in curve_charts()]
    return ws.Section(name="Overoptimization", panels=[*panels], is_open=True)


def line_section(name: str, charts: list[Chart]) -> "Section":
    """Line charts of logs; of reward models, what they ended with against their size too."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    lines = [wr.LinePlot(title=title, x=x, y=[*y]) for title, x, y in charts]
    points = POINTS if name == "Reward models" else []
    by_size = [wr.ScatterPlot(title=title, x=SIZE, y=y, log_x=True) for title, y in points]
    return ws.Section(name=name, panels=[*lines, *by_size], is_open=True)


def report_section() -> "Section":
    """The report's page and its figures."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    pages = ["report", *(drawing.name for drawing in drawings())]
    browser = wr.MediaBrowser(media_keys=[f"report/{page}" for page in pages], num_columns=2)
    return ws.Section(name="Report", panels=[browser], is_open=True)


def definition(made: "Workspace") -> Row:
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
        made.entity = entity or wandb.Api().default_entity or ""
        return made.save().url
    except Exception as error:
        line = " ".join(str(error).split())[:300] or type(error).__name__
        raise DashboardError(f"cannot save the dashboard of {project}: {line}") from error
