import numpy as np
import pytest

from rmo.analysis import bootstrap, fitting, scaling
from rmo.analysis.curve import COLUMNS, CurveError, from_prompts, from_rows, to_rows


def make(method, alpha, beta, params=1000, seed=0, noise=0.0, prompts=40, kl=None, rng=None, seed_noise=0.0):
    """A curve of the method's own form; noise per prompt is one shift and one slope, so points correlate."""
    rng = rng or np.random.default_rng(params + seed)
    kl = np.linspace(0, 9 if method == "bon" else 40, 30) if kl is None else kl
    d = np.sqrt(kl)
    alpha = alpha + seed_noise * rng.normal()
    gold = fitting.Fit(fitting.FORM_OF[method], alpha, beta, np.nan, np.nan)(d)
    shifts = rng.normal(size=(1, prompts)) + rng.normal(size=(1, prompts)) * d[:, None] / 3
    table = gold[:, None] + noise * (shifts * (d[:, None] > 0) + rng.normal(size=(len(d), prompts)) / 4)
    return from_prompts(method, np.arange(len(d)), kl, table, table, rm_params=params, seed=seed)


@pytest.mark.parametrize(("method", "alpha", "beta"), [("bon", 0.5, 0.12), ("ppo", 0.35, 0.15), ("bon", 0.3, -0.02)])
def test_recovers_coefficients(method, alpha, beta):
    curve = make(method, alpha, beta)
    got = fitting.fit_curve(curve.d, curve.gold, fitting.FORM_OF[method])
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
        values = fitting.Fit(form, alpha, beta, np.nan, np.nan)(d)
        d_star, r_star = fitting.peak(form, alpha, beta)
        assert d_star == pytest.approx(d[values.argmax()], rel=1e-3)
        assert r_star == pytest.approx(values.max(), rel=1e-6)
    # The paper's digitised 3M row: KL* 4.2, R* 0.50.
    d_star, r_star = fitting.peak("d(a - b d)", 0.490, 0.120)
    assert (d_star**2, r_star) == pytest.approx((4.2, 0.50), abs=0.05)
    assert np.isinf(fitting.peak("d(a - b d)", 0.5, -0.1)[0])  # never turns: flagged, not hidden
    assert fitting.peak("d(a - b d)", -0.1, 0.1) == (0, 0)  # falls from the start


def test_shared_alpha_is_shared_and_right():
    curves = [make("ppo", 0.35, b, params=p) for p, b in [(10**3, 0.17), (10**4, 0.15), (10**5, 0.12)]]
    groups = fitting.group(curves, "ppo")
    best = fitting.fit_groups(groups, "d(a - b log d)", True, 0.3)
    np.testing.assert_allclose(best, [[0.35, 0.17], [0.35, 0.15], [0.35, 0.12]], atol=1e-6)
    # Equal alpha is enforced where it does not hold.
    mixed = fitting.group([make("ppo", 0.3, 0.1, params=10), make("ppo", 0.6, 0.1, params=100)], "ppo")
    forced = fitting.fit_groups(mixed, "d(a - b log d)", True, 0.3)
    assert forced[0, 0] == forced[1, 0]
    assert 0.3 < forced[0, 0] < 0.6


def test_bootstrap_spans_prompts_and_seeds():
    still = fitting.group([make("bon", 0.5, 0.1, seed=s, noise=0.0) for s in range(2)], "bon")
    assert fitting.bootstrap(still, "d(a - b d)", False, 50)[0].std(axis=0).max() < 1e-9
    prompts = fitting.group([make("bon", 0.5, 0.1, seed=s, noise=1.0) for s in range(2)], "bon")
    assert fitting.bootstrap(prompts, "d(a - b d)", False, 200)[0][:, 0, 0].std() > 0.01
    # Two noiseless seeds with alpha 0.3 and 0.7: their mean's standard error is 0.2.
    seeds = fitting.group([make("bon", a, 0.1, seed=s) for s, a in enumerate((0.3, 0.7))], "bon")
    drawn, r = fitting.bootstrap(seeds, "d(a - b d)", False, 2000)
    assert drawn[1 : 1 + r.draws, 0, 0].std() == pytest.approx(0.2, rel=0.05)
    # One degree of freedom: the interval is far wider than two standard errors.
    low, high = bootstrap.interval(drawn[:, 0, 0], r)
    assert bootstrap.degrees_of_freedom(drawn[:, 0, 0], r) == pytest.approx(1, abs=0.01)
    assert high - low > 1.5


@pytest.mark.slow
@pytest.mark.parametrize("case", ["bon alpha", "bon beta", "ppo alpha", "ppo beta", "shared alpha", "shared beta"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover(case, seeds):
    """95% intervals hold the truth in at least 93 of 100 experiments, with noise over prompts and over RM seeds as large
    as in the runs; also with three seeds, and for the one alpha that all RM sizes share in RL."""
    name, coefficient = case.split()
    method = "bon" if name == "bon" else "ppo"
    sizes = (1000, 10_000, 100_000) if name == "shared" else (1000,)
    hits = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        members = [
            make(method, 0.5, 0.12, p, s, noise=0.3, rng=rng, seed_noise=0.05) for p in sizes for s in range(seeds)
        ]
        values, r = fitting.bootstrap(
            fitting.group(members, method), fitting.FORM_OF[method], name == "shared", 1000, 0.3, seed=trial
        )
        truth, values_N = (0.5, values[:, 0, 0]) if coefficient == "alpha" else (0.12, values[:, 0, 1])
        low, high = bootstrap.interval(values_N, r)
        hits += low <= truth <= high
    assert hits >= 93


def test_extrapolation_prefers_the_true_form():
    groups = fitting.group([make("bon", 0.5, 0.1, params=p, noise=0.02) for p in (10, 100, 1000)], "bon")
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
    curve = make("bon", 0.5, 0.1)
    rng = np.random.default_rng(0)
    table = curve.gold[:, None] + 0.02 * rng.normal(size=(30, 40))
    table[-1] = curve.gold[-1] + 3 + 20 * rng.normal(size=40)
    noisy = from_prompts("bon", curve.step_or_n, curve.kl, table, table, rm_params=1, seed=0)
    weighted = fitting.fit_groups(fitting.group([noisy], "bon"), "d(a - b d)", False)[0]
    plain = fitting.fit_curve(noisy.d, noisy.gold, "d(a - b d)")
    assert abs(weighted[1] - 0.1) < 0.3 * abs(plain.beta - 0.1)


def test_seeds_of_one_rm_are_resampled_together():
    """Best-of-n and PPO of one RM and seed go in or out together, so their difference is paired."""
    curves = [make(m, 0.5, 0.1, params=p, seed=s) for m in ("bon", "ppo") for p in (10, 20) for s in range(3)]
    r = bootstrap.resample(curves, 50)
    np.testing.assert_array_equal(r.weight_NC[:, :6], r.weight_NC[:, 6:])
    assert (r.weight_NC[:, :3] != r.weight_NC[:, 3:6]).any()
    np.testing.assert_allclose(r.weight_NC[1:51, :3].sum(1), 2)  # S - 1 of S
    np.testing.assert_allclose(r.share_NQ.sum(1), 1)
    assert len(r.blocks) == 3  # prompts, and the seeds of two RMs


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
    curves = [make("bon", 0.4 + 0.05 * i, 0.12 - 0.01 * i, 10**i, s, 0.3) for i in (3, 4, 5) for s in (0, 1)]
    curves += [make("ppo", 0.35, 0.2 - 0.02 * i, 10**i, s, 0.3) for i in (3, 4, 5) for s in (0, 1)]
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
    assert set(bon["extrapolation"]) == set(fitting.FORMS)
    assert "alpha" not in out["ppo"]["trends"]  # shared by construction: no trend to measure
    assert bon["groups"][0]["interval_from"] == "prompts and 2 seeds"


def test_csv_round_trip(tmp_path):
    from rmo.runtime.files import read_csv, write_csv

    curves = [make("bon", 0.5, 0.1, params=p, noise=0.3) for p in (10, 100)]
    write_csv(tmp_path / "c.csv", COLUMNS, [row for c in curves for row in to_rows(c)])
    back = from_rows(read_csv(tmp_path / "c.csv"))
    for a, b in zip(curves, back, strict=True):
        np.testing.assert_allclose(a.gold, b.gold, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(a.gold_se, b.gold_se, rtol=1e-8)
        assert b.meta["rm_params"] == a.meta["rm_params"]
    assert scaling.summarise(back, draws=50)["bon"]["groups"][0]["alpha_interval"][0] < 0.5


def test_a_spreadsheets_csv_is_read(tmp_path):
    from rmo.runtime.files import read_csv

    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbfkl, gold\n0,0\n1, 0.5\n4,0.7\n")
    (curve,) = from_rows(read_csv(tmp_path / "c.csv"))
    assert curve.gold.tolist() == [0, 0.5, 0.7]


def test_a_curve_too_short_to_fit_is_named_not_fatal():
    curves = [make("ppo", 0.35, 0.1, params=p, kl=np.linspace(0, k, 12)) for p, k in [(10, 9), (20, 9), (30, 0.05)]]
    part = scaling.summarise(curves, draws=20)["ppo"]
    assert [g["rm_params"] for g in part["groups"]] == [10, 20]
    assert part["too_short"] == ["30 parameters"]
    with pytest.raises(CurveError, match="no curve has 3 points"):
        scaling.summarise(curves[2:], draws=20)


def test_fall_se_is_paired():
    """A shift common to all points of a prompt says nothing about a fall within the curve."""
    rng = np.random.default_rng(0)
    table = np.array([0.0, 1.0, 0.5])[:, None] + 10 * rng.normal(size=(1, 50))
    curve = from_prompts("bon", [1, 2, 3], [0.0, 1.0, 2.0], table, table)
    np.testing.assert_allclose(curve.fall_se, 0, atol=1e-12)
    assert curve.gold_se.min() > 1


def test_a_biased_bootstrap_is_not_stretched_in_its_bias():
    """The estimate lies inside its interval even where resampling pushes a statistic one way (a minimum, an R2)."""
    curves = [make("bon", 0.5, 0.1, seed=s, noise=1.0) for s in range(3)]
    r = bootstrap.resample(curves, 500)
    noise = np.random.default_rng(0).normal(size=(len(r.share_NQ), 12))
    noise[0] = 0
    values = (1 - np.abs(noise)).min(axis=1)  # at most 1, and lower on every resample
    low, high = bootstrap.interval(values, r)
    assert low <= values[0] <= high


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"kl": "1"}], "no column gold"),
        ([{"kl": "1", "gold": "x"}], "line 2: gold is 'x'"),
        ([{"kl": "1", "gold": ""}], "finite"),
        ([{"kl": "1", "gold": "1", "method": "sft"}], "method is 'sft'"),
        ([{"kl": "1", "gold": None}], "more or fewer cells"),
        ([{"kl": "1", "gold": "1"}, {"kl": "1", "gold": "2"}], "two points at kl 1: tell its runs apart"),
        ([{"kl": k, "gold": "1", "step_or_n": "7"} for k in "12"], "two points at step_or_n 7: tell its runs apart"),
        ([{"kl": "1", "gold": "1", "gold_se": "1"}, {"kl": "2", "gold": "1", "gold_se": ""}], "gold_se is filled in"),
    ],
)
def test_bad_tables_are_named(rows, message):
    with pytest.raises(CurveError, match=message):
        from_rows(rows)


def test_short_curves_are_fitted_but_not_extrapolated():
    groups = fitting.group([make("bon", 0.5, 0.1, kl=np.array([0.0, 1.0, 4.0, 9.0]))], "bon")
    score = scaling.extrapolate(groups, "d(a - b d)", 0.0, np.full(40, 1 / 40), np.ones(1))
    assert score["scored"] == 0
    assert np.isnan(score["held_out_rmse"])
    row = scaling.summarise([make("bon", 0.5, 0.1, kl=np.array([0.0, 1.0, 4.0, 9.0]))], draws=20)["bon"]["groups"][0]
    assert row["alpha"] == pytest.approx(0.5)


def test_too_few_points():
    with pytest.raises(CurveError, match="at least 3"):
        fitting.fit_curve(np.array([0.0, 1.0, 2.0]), np.zeros(3), "d(a - b d)")
