"""Forms, fits and intervals: coefficients come back from curves made of them, with the errors that noise has."""

from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis import bootstrap, fitting, forms, scaling
from rmo.analysis.curve import CurveError, from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Family
from rmo.methods import method
from rmo.methods.method import every, find
from tests.helpers.made_curves import BON, PPO, made, refits


@pytest.mark.parametrize(("method", "alpha", "beta"), [("bon", 0.5, 0.12), ("ppo", 0.35, 0.15), ("bon", 0.3, -0.02)])
def test_recovers_coefficients(method, alpha, beta):
    curve = made(method, alpha, beta)
    got = fitting.fit_curve(curve.d, curve.gold, find(method).form)
    assert (got.alpha, got.beta) == pytest.approx((alpha, beta), abs=1e-6)
    assert got.r2 == pytest.approx(1)
    np.testing.assert_allclose(got(curve.d), curve.gold, atol=1e-6)


def test_rival_with_a_shape_parameter():
    d = np.linspace(0.1, 6, 40)
    truth = d * (1.5 - 0.7 * d**0.3)
    got = fitting.fit_curve(d, truth, "d(a - b d^g)")
    assert got.extra == pytest.approx(0.3, abs=0.02)
    assert got.rmse < 1e-3


def test_peaks_in_closed_form():
    for form, top in [("d(a - b d)", 30.0), ("d(a - b log d)", 60.0)]:
        d = np.linspace(0.01, top, 400_000)
        alpha, beta = (0.5, 0.02) if form == "d(a - b d)" else (0.35, 0.12)
        values = fitting.Fit(form, alpha, beta)(d)
        d_star, r_star = forms.peak(form, alpha, beta)
        assert d_star == pytest.approx(d[values.argmax()], rel=1e-3)
        assert r_star == pytest.approx(values.max(), rel=1e-6)
    # The paper's digitised 3M row: KL* 4.2, R* 0.50.
    d_star, r_star = forms.peak("d(a - b d)", 0.490, 0.120)
    assert (d_star**2, r_star) == pytest.approx((4.2, 0.50), abs=0.05)
    assert np.isinf(forms.peak("d(a - b d)", 0.5, -0.1)[0])  # never turns: flagged, not hidden
    assert forms.peak("d(a - b d)", -0.1, 0.1) == (0, 0)  # falls from the start


@pytest.mark.parametrize(("form", "alpha", "beta"), [(BON, 0.5, 0.1), (PPO, 0.5, 0.3)])
def test_slope_is_that_of_the_form_and_turns_at_the_peak(form, alpha, beta):
    top = float(forms.peak(form, alpha, beta)[0])
    assert forms.slope(form, alpha, beta, top) == pytest.approx(0, abs=1e-12)
    for d in (0.5, top + 1):
        low, high = fitting.Fit(form, alpha, beta)(np.array([d - 1e-5, d + 1e-5]))
        assert forms.slope(form, alpha, beta, d) == pytest.approx((high - low) / 2e-5, rel=1e-5)


def test_forms_of_methods_have_peaks_and_rivals_say_that_they_have_none():
    for each in every():
        form = forms.FORMS[each.form]
        assert form.peak is not None
        assert form.slope is not None
        assert form.shapes is None
    for of in (forms.peak, lambda form, a, b: forms.slope(form, a, b, 1.0)):
        with pytest.raises(ValueError, match=r"no closed form .* of a d\^g: give it one in rmo/analysis/forms.py"):
            of("a d^g", 1.0, 0.0)


def test_a_new_form_is_one_entry_and_is_ranked_and_fitted(monkeypatch):
    """The recipe of rmo/analysis/README.md."""
    root = forms.Form(lambda d, _: np.stack([d, -(d**1.5)], 1))
    monkeypatch.setitem(forms.FORMS, "d(a - b sqrt d)", root)
    d = np.linspace(0, 3, 30)
    gold = 0.5 * d - 0.1 * d**1.5
    rival = made("bon", 0.5, 0.1)
    curves = [from_prompts(rival.id, rival.step_or_n, d**2, gold[:, None] + np.zeros(2), gold[:, None] + np.zeros(2))]
    ranked = scaling.summarise(curves, 20)["bon"]["extrapolation"]
    assert min(ranked, key=lambda form: ranked[form]["held_out_rmse"]) == "d(a - b sqrt d)"
    # To fit a method with it, it needs a peak and a slope.
    peaked = root._replace(
        peak=lambda a, b: ((2 * a / (3 * b)) ** 2, a**3 * 4 / (27 * b**2)), slope=lambda a, b, d: a - 1.5 * b * d**0.5
    )
    monkeypatch.setitem(forms.FORMS, "d(a - b sqrt d)", peaked)
    monkeypatch.setitem(method._METHODS, "bon", replace(find("bon"), form="d(a - b sqrt d)"))
    (row,) = scaling.summarise(curves, 20)["bon"]["groups"]
    assert (row["alpha"], row["beta"]) == pytest.approx((0.5, 0.1))
    assert row["peak_kl"] == pytest.approx((2 * 0.5 / 0.3) ** 4)
    assert row["peak_gold"] == pytest.approx(4 * 0.5**3 / 0.27)


def test_shared_alpha_is_shared_and_right():
    curves = [made("ppo", 0.35, b, params=p) for p, b in [(10**3, 0.17), (10**4, 0.15), (10**5, 0.12)]]
    groups = fitting.group(curves, "ppo")
    best = Family(groups, PPO, True, 0.3).best()
    np.testing.assert_allclose(best, [[0.35, 0.17], [0.35, 0.15], [0.35, 0.12]], atol=1e-6)
    # Equal alpha is enforced where it does not hold.
    mixed = fitting.group([made("ppo", 0.3, 0.1, params=10), made("ppo", 0.6, 0.1, params=100)], "ppo")
    forced = Family(mixed, PPO, True, 0.3).best()
    assert forced[0, 0] == forced[1, 0]
    assert 0.3 < forced[0, 0] < 0.6


def test_bootstrap_spans_prompts_and_seeds():
    still = fitting.group([made("bon", 0.5, 0.1, seed=s, noise=0.0) for s in range(2)], "bon")
    assert refits(still, BON, False, 50)[0].std(axis=0).max() < 1e-9
    prompts = fitting.group([made("bon", 0.5, 0.1, seed=s, noise=1.0) for s in range(2)], "bon")
    assert refits(prompts, BON, False, 200)[0][:, 0, 0].std() > 0.01
    # Two noiseless seeds with alpha 0.3 and 0.7: their mean's standard error is 0.2.
    seeds = fitting.group([made("bon", a, 0.1, seed=s) for s, a in enumerate((0.3, 0.7))], "bon")
    drawn, r = refits(seeds, BON, False, 2000)
    assert drawn[1 : 1 + r.draws, 0, 0].std() == pytest.approx(0.2, rel=0.05)
    # One degree of freedom: the interval is far wider than two standard errors.
    low, high = bootstrap.interval(drawn[:, 0, 0], r)
    assert bootstrap.degrees_of_freedom(drawn[:, 0, 0], r) == pytest.approx(1, abs=0.01)
    assert high - low > 1.5


@pytest.mark.slow
@pytest.mark.parametrize("case", ["bon alpha", "bon beta", "ppo alpha", "ppo beta", "shared alpha", "shared beta"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover(case, seeds):
    """95% intervals hold the truth in at least 93% of 1,000 experiments, with noise over prompts and over RM seeds as
    large as in the runs; also with three seeds, and for the one alpha that all RM sizes share in RL. (Of 100, intervals
    that cover 95% would hold it in fewer than 93 by chance in one case of eight.)"""
    name, coefficient = case.split()
    method = "bon" if name == "bon" else "ppo"
    sizes = (1000, 10_000, 100_000) if name == "shared" else (1000,)
    hits = 0
    trials = 1000
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        members = [
            made(method, 0.5, 0.12, p, s, noise=0.3, rng=rng, seed_noise=0.05) for p in sizes for s in range(seeds)
        ]
        groups = fitting.group(members, method)
        values, r = refits(groups, find(method).form, name == "shared", 1000, 0.3, seed=trial)
        truth, values_N = (0.5, values[:, 0, 0]) if coefficient == "alpha" else (0.12, values[:, 0, 1])
        low, high = bootstrap.interval(values_N, r)
        hits += low <= truth <= high
    assert hits >= 0.93 * trials


def test_extrapolation_prefers_the_true_form():
    groups = fitting.group([made("bon", 0.5, 0.1, params=p, noise=0.02) for p in (10, 100, 1000)], "bon")
    extrapolate = lambda form: scaling.extrapolate(groups, form, 0.0, np.full(40, 1 / 40), np.ones(3))
    own = extrapolate("d(a - b d)")
    assert own["held_out_rmse"] < 0.05
    assert own["held_out_rmse"] < extrapolate("d(a - b log d)")["held_out_rmse"]
    ranked = scaling.rank_forms(groups, 0.0, 50, 0.95)
    assert ranked["d(a - b d)"]["mean_rank"] < ranked["d(a - b log d)"]["mean_rank"]
    assert sum(row["best_share"] for row in ranked.values()) == pytest.approx(1)
    assert own["held_out_spread"] > 0


def test_points_weigh_by_their_errors():
    """A point with a large standard error hardly moves the fit; the same point unweighted does."""
    curve = made("bon", 0.5, 0.1)
    rng = np.random.default_rng(0)
    table = curve.gold[:, None] + 0.02 * rng.normal(size=(30, 40))
    table[-1] = curve.gold[-1] + 3 + 20 * rng.normal(size=40)
    noisy = from_prompts(CurveId("bon", 1, seed=0), curve.step_or_n, curve.kl, table, table)
    weighted = Family(fitting.group([noisy], "bon"), BON, False).best()[0]
    plain = fitting.fit_curve(noisy.d, noisy.gold, "d(a - b d)")
    assert abs(weighted[1] - 0.1) < 0.3 * abs(plain.beta - 0.1)


def test_seeds_of_one_rm_are_resampled_together():
    """Best-of-n and PPO of one RM and seed go in or out together, so their difference is paired, and so do all RMs of
    one seed's label, which share its comparisons."""
    curves = [made(m, 0.5, 0.1, params=p, seed=s) for m in ("bon", "ppo") for p in (10, 20) for s in range(3)]
    r = bootstrap.resample(curves, 50)
    np.testing.assert_array_equal(r.weight_NC[:, :6], r.weight_NC[:, 6:])
    np.testing.assert_array_equal(r.weight_NC[:51, :3], r.weight_NC[:51, 3:6])
    np.testing.assert_allclose(r.weight_NC[1:51, :3].sum(1), 2)  # S - 1 of S
    np.testing.assert_allclose(r.share_NQ.sum(1), 1)
    assert len(r.rms) == 2
    np.testing.assert_allclose(r.weight_NC.sum(1)[[0, *range(51, len(r.weight_NC))]], 12)


def test_laws_by_leave_one_out():
    params = np.array([1e3, 1e4, 1e5, 1e6])
    for law, values in [("a + b log N", 0.1 + 0.2 * np.log10(params)), ("power law", 3 * params**-0.4)]:
        errors = scaling.leave_one_out(params, values)
        assert min(errors, key=errors.__getitem__) == law
        assert errors[law] < 1e-6
    assert scaling.leave_one_out(params, np.array([-1.0, 1, 2, 3]))["power law"] == np.inf


def test_trends():
    params = np.array([1e3, 1e4, 1e5])
    slope, at_1 = scaling.against_log_size(params, np.array([0.4, 0.5, 0.6]))
    assert (slope, at_1) == pytest.approx((0.1, 0.1))


def test_summary_of_both_methods():
    curves = [made("bon", 0.4 + 0.05 * i, 0.12 - 0.01 * i, 10**i, s, 0.3) for i in (3, 4, 5) for s in (0, 1)]
    curves += [made("ppo", 0.35, 0.2 - 0.02 * i, 10**i, s, 0.3) for i in (3, 4, 5) for s in (0, 1)]
    out = scaling.summarise(curves, draws=100)
    assert set(out) == {"bon", "ppo"}
    bon = out["bon"]
    assert [g["rm_params"] for g in bon["groups"]] == [1000, 10_000, 100_000]
    assert bon["trends"]["alpha"]["interval"][0] < 0.05 < bon["trends"]["alpha"]["interval"][1]
    for part in out.values():
        for g in part["groups"]:
            for name in ("alpha", "beta", "peak_gold", "peak_kl"):
                assert g[name + "_interval"][0] <= g[name] <= g[name + "_interval"][1]
        assert set(part["laws"]["beta"]) == {"constant", "a + b log N", "power law"}
    assert [row["min_d"] for row in out["ppo"]["lower_end"]] == list(scaling.MIN_D)
    assert set(bon["extrapolation"]) == set(forms.FORMS)
    assert "alpha" not in out["ppo"]["trends"]  # shared by construction: no trend to measure
    assert bon["groups"][0]["interval_from"] == "prompts and 2 seeds"


def test_a_curve_too_short_to_fit_is_named_not_fatal():
    curves = [made("ppo", 0.35, 0.1, params=p, kl=np.linspace(0, k, 12)) for p, k in [(10, 9), (20, 9), (30, 0.05)]]
    part = scaling.summarise(curves, draws=20)["ppo"]
    assert [g["rm_params"] for g in part["groups"]] == [10, 20]
    assert part["too_short"] == ["30 parameters"]
    with pytest.raises(CurveError, match="no curve has 3 points"):
        scaling.summarise(curves[2:], draws=20)


def test_a_method_whose_curves_are_all_too_short_is_named_and_the_others_are_fitted():
    """Found with a policy that hardly moved: one method of a run had no point beyond the lower end of its fits."""
    curves = [made("bon", 0.5, 0.1, params=10), made("ppo", 0.35, 0.1, params=10, kl=np.linspace(0, 0.05, 12))]
    found = scaling.summarise(curves, draws=20)
    assert len(found["bon"]["groups"]) == 1
    assert (found["ppo"]["groups"], found["ppo"]["main"], found["ppo"]["trends"]) == ([], 0, {})
    assert scaling.not_fitted("bon", found["bon"]) == []
    said = ["ppo: no curve has 3 points with sqrt(KL) > 0.3: a fit of two needs 3"]
    assert scaling.not_fitted("ppo", found["ppo"]) == said
    some = {"min_d": 0.3, "groups": [{}], "too_short": ["10 parameters", "20 parameters"]}
    said = "ppo: not fitted: 10 parameters, 20 parameters. None of these has 3 points with sqrt(KL) > 0.3"
    assert scaling.not_fitted("ppo", some)[0].startswith(said)


def test_a_family_knows_which_of_its_groups_are_too_short():
    """Over all their seeds together, within the range of the fit."""
    kls = {10: np.linspace(0, 9, 12), 20: np.array([0, 0.01, 4.0]), 30: np.array([0, 4.0])}
    groups = fitting.group([made("ppo", 0.35, 0.1, p, s, kl=kl) for p, kl in kls.items() for s in (0, 1, 2)], "ppo")
    assert Family(groups, "d(a - b log d)", False, 0.3).too_short == []  # one point of each of three seeds
    assert Family(groups, "d(a - b log d)", False, 0.3, [9, 9, 1]).too_short == groups[2:]


def test_fall_se_is_paired():
    """A shift common to all points of a prompt says nothing about a fall within the curve."""
    rng = np.random.default_rng(0)
    table = np.array([0.0, 1.0, 0.5])[:, None] + 10 * rng.normal(size=(1, 50))
    curve = from_prompts(CurveId("bon"), np.arange(1, 4), np.arange(3.0), table, table)
    np.testing.assert_allclose(curve.fall_se, 0, atol=1e-12)
    assert curve.gold_se.min() > 1


def test_a_biased_bootstrap_is_not_stretched_in_its_bias():
    """The estimate lies inside its interval even where resampling pushes a statistic one way (a minimum, an R2)."""
    curves = [made("bon", 0.5, 0.1, seed=s, noise=1.0) for s in range(3)]
    r = bootstrap.resample(curves, 500)
    noise = np.random.default_rng(0).normal(size=(len(r.share_NQ), 12))
    noise[0] = 0
    values = (1 - np.abs(noise)).min(axis=1)  # at most 1, and lower on every resample
    low, high = bootstrap.interval(values, r)
    assert low <= values[0] <= high


def test_short_curves_are_fitted_but_not_extrapolated():
    groups = fitting.group([made("bon", 0.5, 0.1, kl=np.array([0.0, 1.0, 4.0, 9.0]))], "bon")
    score = scaling.extrapolate(groups, "d(a - b d)", 0.0, np.full(40, 1 / 40), np.ones(1))
    assert score["scored"] == 0
    assert np.isnan(score["held_out_rmse"])
    row = scaling.summarise([made("bon", 0.5, 0.1, kl=np.array([0.0, 1.0, 4.0, 9.0]))], draws=20)["bon"]["groups"][0]
    assert row["alpha"] == pytest.approx(0.5)


def test_too_few_points():
    with pytest.raises(CurveError, match="at least 3"):
        fitting.fit_curve(np.array([0.0, 1.0, 2.0]), np.zeros(3), "d(a - b d)")
