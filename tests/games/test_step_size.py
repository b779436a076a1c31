from maxent_onpolicy.games.solvers.step_size import BackOff


def test_a_growing_gap_halves_the_step_and_a_shrinking_one_regains_it():
    back_off = BackOff()
    for gap, factor in ((1.0, 1.0), (1.4, 1.0), (2.2, 0.5), (2.2, 0.51), (1.0, 0.5202), (float("nan"), 0.2601)):
        back_off.see(gap, scale=1.0)
        assert abs(back_off.factor - factor) < 1e-12


def test_rounding_is_no_growth_at_any_scale():
    for scale in (1e-6, 1.0, 1e6):
        back_off = BackOff()
        for gap in (1e-16, 1e-15, 0.0, 9e-14):
            back_off.see(gap * scale, scale)
            assert back_off.factor == 1.0
        back_off.see(1e-12 * scale, scale)
        assert back_off.factor == 0.5
