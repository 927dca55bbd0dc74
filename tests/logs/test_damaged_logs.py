"""Whatever file is given, there are points, or one line that says what is wrong."""

import time
import warnings

from rmo import config
from rmo.analysis import scaling
from rmo.analysis.curve import CurveError
from rmo.artifacts.curves_csv import from_rows
from rmo.logs import reading
from rmo.logs.columns import Columns
from rmo.runtime.files import RunError
from tests.helpers.damaged_logs import damaged_logs

COUNT, SLOWEST = 300, 2.0  # seconds


def outcome(path, want):
    """The line that is said, or an empty one where a fit could be made."""
    try:
        rows, notes = reading.read([path], want)
        assert all("\n" not in note for note in notes)
        scaling.summarise(from_rows(rows), 2)
    except (config.ConfigError, CurveError, RunError) as error:
        return str(error)
    return ""


def test_three_hundred_damaged_logs_get_a_line_each(tmp_path):
    """No traceback, no warning of numpy's, no second line, and soon; most cannot be used, and some can."""
    want = Columns(kl="kl", gold="gold", proxy="reward", kl_sum=True)
    said = []
    for i, (name, content) in enumerate(damaged_logs(COUNT)):
        path = tmp_path / str(i) / name
        path.parent.mkdir()
        path.write_bytes(content)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            line = outcome(path, want if i % 3 else Columns())
        assert time.process_time() - start < SLOWEST, name
        assert "\n" not in line, (name, line)
        assert not line or len(line) > 20, (name, line)
        said.append(line)
    used = said.count("")
    assert 5 < used < COUNT / 2
