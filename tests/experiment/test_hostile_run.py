"""The page of a run whose files say hostile things, in a real browser."""

import json

from rmo.report import compare, run_report
from rmo.runtime.files import read_json, write_json
from tests.helpers.hostile import HOSTILE, harmless
from tests.helpers.smoke import copied, resealed

KEPT = {
    "method",
    "path",
    "stage",
    "state",
    "settings",
    "rm_recipe",
    "rm_combined",
    "recipe",
    "scores",
    "samples",
    "sweep",
}


def poisoned(value, key=""):
    """JSON with a hostile end to every text, but for those that say which file or method is meant."""
    if isinstance(value, dict):
        return {k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, key) for v in value]
    return value + HOSTILE if isinstance(value, str) and key not in KEPT else value


def poison(run):
    e = read_json(run / "experiment.json")
    e |= {"name": HOSTILE, "note": HOSTILE, "tags": [HOSTILE]}
    write_json(run / "experiment.json", e)
    claims = read_json(run / "claims.json")
    for i, c in enumerate(claims):
        c |= {name: c[name] + HOSTILE for name in ("text", "measured")} | {"why": HOSTILE}
        c["claim"] += HOSTILE if i % 2 else ""
    write_json(run / "claims.json", claims)
    for file in run.rglob("cost.json"):
        write_json(file, poisoned(read_json(file)))
    coefficients = read_json(run / "coefficients.json")
    for part in coefficients.values():
        part["too_short"] += [HOSTILE]
        for group in part["groups"]:
            group |= {name: group[name] + HOSTILE for name in ("group", "interval_from")}
    write_json(run / "coefficients.json", coefficients)
    gold = read_json(run / "gold.json")
    write_json(run / "gold.json", {name + HOSTILE: row for name, row in gold.items()})
    for file in run.glob("gold-*/info.json"):
        write_json(file, poisoned(read_json(file)))
    for file in run.rglob("tokenizer.json"):  # what the policies write
        made = json.loads(file.read_text())
        vocabulary = made["model"]["vocab"]
        made["model"]["vocab"] = {
            (word + "<script>window.hit=1</script>" if i > 8 else word): i for word, i in vocabulary.items()
        }
        file.write_text(json.dumps(made))


def test_no_text_of_a_run_becomes_markup(smoke, tmp_path):
    run = copied(smoke, tmp_path)
    poison(run)
    resealed(run)
    harmless(run_report.write(run))
    other = copied(smoke, tmp_path / "b")
    harmless(compare.write([run, other], tmp_path / "compare.html"))


def test_figures_are_not_written_through_a_link(smoke, tmp_path):
    import shutil

    import pytest

    from rmo.runtime.files import RunError

    run = copied(smoke, tmp_path)
    shutil.rmtree(run / "figures")
    (tmp_path / "outside").mkdir()
    (run / "figures").symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match="leads out of the run directory"):
        run_report.write(run)
    assert not list((tmp_path / "outside").iterdir())
