"""Is gold a fair judge? How it relates to what it learned from, and to broken text."""

import html

from rmo.artifacts.run_files import RunFiles
from rmo.report.page.tables import table
from rmo.runtime.types import Row


def gold_section(run: RunFiles, gold: Row) -> str:
    """Gold is the truth by definition; here is how it relates to the annotator it learned from, and to broken text.
    `gold` is what gold.json holds: {kind of text: its scores}."""
    about = f"{origin(run)}{agreement(run)}{labels(run)}It is the truth of this run by definition. "
    return f"<p>{about}{broken_texts(gold)}</p>{through_text(run)}{scores_table(gold)}"


def origin(run: RunFiles) -> str:
    """What gold is, as the stage that made it says."""
    info = run.stage("gold").info()
    parameters = f"{info['params']['non_embedding']:,} parameters without embeddings"
    return f"Gold is {html.escape(info['sentence'])} ({parameters}). "


def agreement(run: RunFiles) -> str:
    """How far gold agrees with what it learned from, on texts it was not trained on."""
    info, text = run.stage("gold").info(), ""
    if "held_out_broad_text" in info:
        found = info["held_out_broad_text"]["rank_correlation"]
        text += f"On held-out broad text its rank correlation with the annotator is {found:.3f}. "
    if "held_out_people" in info:
        text += people_sentence(info["held_out_people"], info["comparisons"]["held_out"])
    return text


def labels(run: RunFiles) -> str:
    """Who labelled the comparisons, where it was not gold."""
    info = run.stage("comparisons").info()
    if "labelled_by" not in info:
        return ""
    return (
        f"Comparisons were labelled by {html.escape(info['labelled_by'])} and not by gold, which scores the preferred "
        f"response higher in {info['agreement_with_gold']:.1%} of them; {info['ties']:.1%} were a tie, and labelled by "
        "a coin's toss. "
    )


def people_sentence(p: Row, size: int) -> str:
    """How gold agrees with people on comparisons that it was not trained on."""
    low, high = p["accuracy_interval"]
    return (
        f"On {size:,} held-out comparisons it chose as people did {p['accuracy']:.3f} [{low:.3f}, {high:.3f}] of the "
        f"time; calibration error {p['calibration_error']:.3f}; rank correlation of score and length "
        f"{p['length_correlation']:.2f}; people preferred the longer response {p['longer_wins']:.3f} of the time, gold "
        f"{p['scores_longer']:.3f}. "
    )


def broken_texts(gold: Row) -> str:
    """What gold gives to garbled and collapsed text."""
    return " ".join(
        f"{html.escape(kind.capitalize())} text scores {scores['gold_mean']:+.2f} ± {scores['gold_se']:.2f}, "
        f"{side(scores)} the initial policy's mean of 0."
        for kind, scores in gold.items()
        if kind.startswith(("garbled", "collapsed"))
    )


def side(scores: Row) -> str:
    """Where a mean lies against 0, two standard errors being the measure."""
    low = scores["gold_mean"] - 2 * scores["gold_se"]
    high = scores["gold_mean"] + 2 * scores["gold_se"]
    if high < 0:
        return "below"
    return "above" if low > 0 else "not measurably off"


def through_text(run: RunFiles) -> str:
    """What is lost between the policy's tokenizer and gold's, where they are two."""
    drift = run.stage("comparisons").info().get("gold_through_text")
    if not drift:
        return ""
    return (
        f"<p>Gold reads text through a tokenizer of its own: {drift['tokens']:.2f} of its tokens per token of the "
        f"policy's. Of {drift['texts']:,} responses {drift['changed']:.1%} would be other ids if the policy's "
        f"tokenizer wrote their text anew, {drift['not_text']:.1%} hold bytes that are no text, "
        f"{drift['special']:.1%} spell a special token of gold's, and {drift['unfinished']:.1%} ran out of room. "
        f"{cut_texts(run)}</p>"
    )


def cut_texts(run: RunFiles) -> str:
    """How many texts of optimised policies were too long for gold's or a proxy's fixed length, at worst."""
    found = [optimised.record.diagnostics for _, _, optimised in run.optimised()]
    shares = [float(d[name].max()) for d in found for name in ("proxy_cut", "gold_cut") if name in d]
    worst = max(shares, default=0.0)
    return f"At one point up to {worst:.1%} of texts were too long for an RM and lost their beginning." if worst else ""


def scores_table(gold: Row) -> str:
    """Scores by kind of text; what no kind has is left out."""
    optional = {"rank_correlation": "rank correlation with annotator", "annotator_mean": "annotator mean"}
    known = {name: title for name, title in optional.items() if any(row[name] is not None for row in gold.values())}
    columns = {"texts": "how many", "gold_mean": "gold mean", "gold_se": "s.e.", **known, "length": "tokens"}
    rows = [[kind, *(scores[name] for name in columns)] for kind, scores in gold.items()]
    return table(["texts", *columns.values()], rows)
