"""Folds in space: nothing shared between test and training, everything counted, everything the same again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wetmap.classes import MapClass
from wetmap.errors import LeakWarning, SplitError
from wetmap.recipe import Splits
from wetmap.samples import ROLES, Samples, split_samples
from wetmap.samples.deal import ATTEMPTS, Dealer
from wetmap.samples.folds import assign_groups, block_groups, block_side_px
from wetmap.samples.roles import roles_of, thinnest, window_overlap
from wetmap.samples.splits import describe_split, leak_note

SHAPE = (300, 400)


def samples_at(row, col, label, polygon=None):
    row, col = np.asarray(row, dtype=np.int32), np.asarray(col, dtype=np.int32)
    polygon = np.arange(len(row)) if polygon is None else polygon
    return Samples(row, col, np.asarray(label, dtype=np.uint8), np.asarray(polygon, dtype=np.int32))


def layout(seed, count=400, classes=3, polygons=60, spread=10):
    """Samples in polygons of one class, scattered."""
    generator = np.random.default_rng(seed)
    centre = generator.integers(20, [SHAPE[0] - 20, SHAPE[1] - 20], (polygons, 2))
    polygon = generator.integers(0, polygons, count)
    at = centre[polygon] + generator.integers(-spread, spread + 1, (count, 2))
    at, first = np.unique(at, axis=0, return_index=True)
    return samples_at(at[:, 0], at[:, 1], polygon[first] % classes, polygon[first])


def split(samples, classes=3, window_px=8, seed=1, **spec):
    table = tuple(MapClass(number + 1, f"class {number}", "#111111") for number in range(classes))
    return split_samples(
        samples, Splits(**spec), window_px=window_px, res_m=10.0, grid_shape=SHAPE, classes=table, seed=seed
    )


def shared_pixels(samples, role, window_px):
    """Test windows that share a pixel with a training window, by painting the windows."""
    painted = np.zeros((SHAPE[0] + 40, SHAPE[1] + 40), dtype=bool)
    for row, col in zip(samples.row[role == "train"] + 20, samples.col[role == "train"] + 20, strict=True):
        top, left = row - window_px // 2, col - window_px // 2
        painted[top : top + window_px, left : left + window_px] = True
    shared = 0
    for row, col in zip(samples.row[role == "test"] + 20, samples.col[role == "test"] + 20, strict=True):
        top, left = row - window_px // 2, col - window_px // 2
        shared += painted[top : top + window_px, left : left + window_px].any()
    return shared


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from(["blocks", "polygons"]),
    st.integers(1, 11),
    st.sampled_from([None, 20.0, 75.0, 130.0]),
    st.integers(0, 2),
)
@settings(deadline=None, max_examples=60)
def test_blocks_and_polygons_never_leak(seed, where, kind, window_px, buffer_m, test_fold):
    samples = layout(where)
    try:
        made = split(
            samples, seed=seed, window_px=window_px, kind=kind, folds=3, buffer_m=buffer_m, test_fold=test_fold
        )
    except SplitError:
        assume(False)
    assert made.leakage == 0.0
    assert shared_pixels(samples, made.role, window_px) == 0
    # Every sample has exactly one role, and its fold agrees with it.
    assert set(made.role) <= set(ROLES)
    expected = {"test": [test_fold], "validation": [(test_fold + 1) % 3], "dropped": [-1]}
    for role in ROLES:
        folds = set(made.fold[made.role == role].tolist())
        assert folds <= set(expected.get(role, {0, 1, 2} - {test_fold, (test_fold + 1) % 3}))
    assert sum(sum(by_role.values()) for by_role in made.counts.values()) == len(samples)
    # The distance is kept between all three roles.
    least = max(window_px, int(np.ceil((buffer_m or 0) / 10)))
    assert made.buffer_px == least
    at = np.stack([samples.row, samples.col], axis=1)
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        gap = np.abs(at[made.role == one][:, None] - at[made.role == other][None]).max(axis=2)
        assert gap.min() >= least


@given(st.integers(0, 10**6), st.sampled_from(["blocks", "polygons"]))
@settings(deadline=None, max_examples=20)
def test_groups_stay_whole_and_only_what_is_too_near_is_dropped(where, kind):
    samples = layout(where)
    try:
        made = split(samples, kind=kind, folds=3, block_m=400 if kind == "blocks" else None)
    except SplitError:
        assume(False)
    group = samples.polygon if kind == "polygons" else samples.row // 40 * 100 + samples.col // 40
    kept = made.fold >= 0
    for one in np.unique(group[kept]):
        assert len(set(made.fold[kept & (group == one)].tolist())) == 1
    at = np.stack([samples.row, samples.col], axis=1)
    dropped = np.flatnonzero(~kept)
    if len(dropped):
        others = at[np.isin(made.role, ["test", "validation"]) | ~kept]
        gap = np.abs(at[dropped][:, None] - others[None]).max(axis=2)
        assert (np.sort(gap, axis=1)[:, 1] < 8).all()  # the nearest is itself


def test_the_edge_of_the_buffer_by_hand():
    # Windows of 8 px around columns 0 and 8 touch and share nothing; 0 and 7 share a column of pixels.
    at = np.array([[0, 0], [0, 7], [0, 8], [7, 3], [8, 3]], dtype=float)
    assert window_overlap(at[[0]], at[[1]], 8) == 1.0
    assert window_overlap(at[[0]], at[[2]], 8) == 0.0
    assert window_overlap(at[[0]], at[[3]], 8) == 1.0
    assert window_overlap(at[[0]], at[[4]], 8) == 0.0
    assert window_overlap(at[[0, 2]], at[[1]], 8) == 1.0
    assert window_overlap(at[[0, 4]], at[[1]], 8) == 0.5
    roles = roles_of(np.array([0, 2, 2, 1, 1]), at, 0, 1, 8)
    # Validation (7, 3) is too near the test sample; training (0, 7) too, and (0, 8) is 8 from (8, 3).
    assert roles.tolist() == ["test", "dropped", "train", "dropped", "validation"]


def test_without_buffer_nothing_is_dropped():
    at = np.array([[0, 0], [0, 1], [0, 2]], dtype=float)
    assert roles_of(np.array([0, 1, 2]), at, 0, 1, 0).tolist() == ["test", "validation", "train"]


@pytest.mark.parametrize("kind", ["blocks", "polygons"])
def test_same_seed_same_split_and_the_order_of_samples_is_nothing(kind):
    samples = layout(5)
    one, other = split(samples, kind=kind, folds=3), split(samples, kind=kind, folds=3)
    assert (one.fold == other.fold).all()
    assert one.summary == other.summary
    order = np.random.default_rng(0).permutation(len(samples))
    shuffled = samples_at(samples.row[order], samples.col[order], samples.label[order], samples.polygon[order])
    assert (split(shuffled, kind=kind, folds=3).fold == one.fold[order]).all()


def test_testing_each_fold_in_turn_tests_every_sample_once():
    samples = layout(7)
    tested = sum((split(samples, folds=3, test_fold=fold).role == "test").astype(int) for fold in range(3))
    assert (tested == 1).all()


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_classes_are_even_over_the_folds(seed):
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, 60, 900)
    label = (groups % 3).astype(np.uint8)
    fold = assign_groups(groups, label, 5, 3, (seed,))
    for index in range(3):
        counts = np.bincount(fold[label == index], minlength=5)
        assert counts.min() > 0.6 * counts.mean()


def test_large_groups_are_placed_first():
    sizes = [10, 10, 20, 10, 40, 20, 10]  # 40, 20 + 20 and 4 x 10
    groups = np.repeat(np.arange(7), sizes)
    fold = assign_groups(groups, np.zeros(120, np.uint8), 3, 1, (1,))
    assert np.bincount(fold).tolist() == [40, 40, 40]


def test_a_rare_class_in_as_many_blocks_as_folds_is_in_every_fold():
    samples = layout(11, count=800, classes=2)
    rows, cols = np.array([4, 100, 150, 200, 250]), np.array([4, 300, 150, 60, 350])
    rare = samples_at(
        np.r_[samples.row, rows],
        np.r_[samples.col, cols],
        np.r_[samples.label, np.full(5, 2)],
        np.arange(len(samples) + 5),
    )
    for seed in range(5):
        made = split(rare, folds=5, seed=seed, block_m=400)
        assert all(made.counts["class 2"][role] for role in ("train", "validation", "test"))


def test_a_class_of_too_few_places_is_refused_with_its_counts_and_advice():
    samples = layout(3, classes=2)
    few = samples_at(
        np.r_[samples.row, 5, 6, 7],
        np.r_[samples.col, 5, 5, 5],
        np.r_[samples.label, 2, 2, 2],
        np.zeros(len(samples) + 3),
    )
    with pytest.raises(SplitError) as caught:
        split(few, folds=3)
    text = str(caught.value)
    assert "Class class 2 is not in every one of the 3 folds" in text
    counts = text[text.index("it has ") + 7 : text.index(" samples")]
    assert sorted(counts.split(", ")) == ["0", "0", "3"]
    assert "fewer splits.folds, smaller splits.block_m, more reference" in text
    assert "merge the class" in text
    with pytest.raises(SplitError, match="class 0 is not in every"):
        split(few, kind="polygons", folds=3)


def test_a_class_that_the_buffer_empties_is_refused():
    # Two classes in three places 10 px apart: a buffer of 50 px leaves no training sample.
    samples = samples_at([0, 0, 10, 10, 20, 20], [0, 1, 0, 1, 0, 1], [0, 1] * 3, [0, 0, 1, 1, 2, 2])
    with pytest.raises(SplitError, match=r"Class class 0 has no .* sample with fold 0 held out and 500 m kept"):
        split(samples, classes=2, kind="polygons", folds=3, buffer_m=500)


@pytest.mark.parametrize("test_fold", [0, 3])
def test_the_published_protocol_leaks_and_says_so(test_fold):
    samples = layout(9)
    with pytest.warns(
        LeakWarning, match=r"kind paper LEAKS: \d+% of the test windows share pixels with training windows"
    ):
        made = split(samples, kind="paper", test_fold=test_fold)
    assert made.leakage > 0.5
    assert made.leakage == pytest.approx(shared_pixels(samples, made.role, 8) / (made.role == "test").sum())
    assert made.summary["dropped"] == made.buffer_px == 0
    assert made.leaks
    assert made.summary["leaks"] is True
    assert made.summary["folds"] is None
    assert leak_note(made.summary).startswith(f"LEAKS: {made.leakage:.0%} of the test windows")
    assert describe_split(made.summary).startswith(leak_note(made.summary))


@given(st.integers(0, 10**6), st.lists(st.integers(3, 200), min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_the_published_shares_hold_in_every_class(seed, sizes):
    label = np.repeat(np.arange(len(sizes)), sizes)
    samples = samples_at(np.arange(len(label)), np.arange(len(label)), label)
    with pytest.warns(LeakWarning):
        made = split(samples, classes=len(sizes), kind="paper", seed=seed)
    for size, by_role in zip(sizes, made.counts.values(), strict=True):
        test = max(int(0.3 * size + 0.5), 1)
        assert by_role["test"] == test
        assert by_role["validation"] == max(int(0.1 * (size - test) + 0.5), 1)
        assert sum(by_role.values()) == size
        assert by_role["train"] >= 1
    assert not by_role["dropped"]


def test_the_published_shares_by_hand():
    samples = samples_at(np.arange(100), np.arange(100), np.zeros(100))
    with pytest.warns(LeakWarning):
        made = split(samples, classes=1, kind="paper")
    assert made.counts["class 0"] == {"train": 63, "validation": 7, "test": 30, "dropped": 0}


def with_sites(samples, names):
    """Vertical stripes of the map as sites, named in this order from the west; polygons across a border are cut."""
    order = sorted(names)
    stripe = np.minimum(samples.col * len(names) // SHAPE[1], len(names) - 1)
    site = np.array([order.index(name) for name in names], dtype=np.int16)[stripe]
    return Samples(samples.row, samples.col, samples.label, samples.polygon, site, tuple(order))


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(2, 5),
    st.integers(1, 11),
    st.sampled_from([None, 20.0, 130.0]),
    st.integers(0, 1),
)
@settings(deadline=None, max_examples=60)
def test_sites_never_leak_although_they_touch(seed, where, sites, window_px, buffer_m, test_fold):
    samples = with_sites(layout(where), ["west", "north", "east", "south", "mid"][:sites])
    try:
        made = split(samples, seed=seed, window_px=window_px, kind="sites", buffer_m=buffer_m, test_fold=test_fold)
    except SplitError:
        assume(False)
    assert made.leakage == 0.0
    assert shared_pixels(samples, made.role, window_px) == 0
    assert not made.leaks
    # Every sample of the held-out site is tested, and nothing else is.
    np.testing.assert_array_equal(made.role == "test", samples.site == test_fold)
    trained = set(samples.site[made.role == "train"].tolist())
    checked = set(samples.site[made.role == "validation"].tolist())
    if sites == 2:
        assert trained == checked == {1 - test_fold}
        assert (made.folds, made.validation_fold) == (3, 2)
        assert made.validation_site == f"blocks of {samples.site_names[1 - test_fold]}"
    else:
        assert checked == {(test_fold + 1) % sites}
        assert trained == set(range(sites)) - {test_fold} - checked
        assert made.validation_site == samples.site_names[(test_fold + 1) % sites]
    assert made.test_site == samples.site_names[test_fold]
    assert made.summary["sites"] == list(samples.site_names)
    at = np.stack([samples.row, samples.col], axis=1)
    least = max(window_px, int(np.ceil((buffer_m or 0) / 10)))
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        assert np.abs(at[made.role == one][:, None] - at[made.role == other][None]).max(axis=2).min() >= least


def test_of_two_sites_whole_blocks_of_the_other_choose_the_epoch():
    samples = with_sites(layout(4, count=800), ["a", "b"])
    made = split(samples, kind="sites", test_fold=1, block_m=400)
    block = samples.row // 40 * 100 + samples.col // 40
    shared = set(block[made.role == "train"].tolist()) & set(block[made.role == "validation"].tolist())
    assert shared == set()
    share = (made.role == "validation").sum() / (samples.site == 0).sum()
    assert 0.05 < share < 0.3  # a fifth, less what the buffer takes


def test_sites_say_what_they_need():
    samples = layout(2)
    with pytest.raises(SplitError, match=r"the reference names none\. Name the field .* reference\.site_field"):
        split(samples, kind="sites")
    with pytest.raises(SplitError, match="its samples lie in one site, york"):
        split(with_sites(samples, ["york"]), kind="sites")
    with pytest.raises(SplitError, match=r"test_fold is 3, and there are 3 sites with samples: 0 = a, 1 = b, 2 = c\."):
        split(with_sites(samples, ["a", "b", "c"]), kind="sites", test_fold=3)


def test_a_class_that_one_site_lacks_is_refused_with_the_sites_name():
    samples = with_sites(layout(6), ["albert", "grand bay", "york"])
    keep = ~((samples.site == 1) & (samples.label == 2))
    fewer = Samples(*(values[keep] for values in (samples.row, samples.col, samples.label, samples.polygon)))
    lacking = Samples(fewer.row, fewer.col, fewer.label, fewer.polygon, samples.site[keep], samples.site_names)
    with pytest.raises(SplitError, match=r"class 2 has no test sample with site grand bay held out, the epoch .* york"):
        split(lacking, kind="sites", test_fold=1)


def test_a_split_in_words():
    samples = layout(7)
    assert describe_split(split(samples, folds=3, block_m=400).summary) == (
        "Blocks of 400 m: fold 0 of 3 held out, fold 1 for validation. Distance kept between samples of different use: "
        "80 m. Measured leakage: 0.0% of the test windows share a pixel with a training window."
    )
    assert leak_note(split(samples, folds=3).summary) == ""
    assert describe_split(split(samples, kind="polygons", folds=3).summary).startswith("Whole polygons: fold 0 of 3")
    sites = split(with_sites(samples, ["york", "albert", "bay"]), kind="sites", test_fold=2)
    assert describe_split(sites.summary).startswith("Sites: york held out, albert for validation.")


def test_default_block_side():
    samples = samples_at([0, 263], [0, 263], [0, 0])
    # 264 x 264 px in 5 folds of 8 blocks: sqrt(69696 / 40) = 41.7
    assert block_side_px(samples, Splits(), 8, 10.0, (264, 264)) == 41
    # Never below four windows
    assert block_side_px(samples, Splits(), 16, 10.0, (264, 264)) == 64
    assert block_side_px(samples, Splits(block_m=500), 8, 10.0, (264, 264)) == 50


def test_blocks_smaller_than_the_window_are_refused():
    with pytest.raises(
        SplitError, match=r"block_m = 50 is smaller than the model's window of 80 m\. Give at least 320"
    ):
        split(layout(0), block_m=50.0)


def test_of_the_divisions_the_one_with_the_least_thin_class_is_taken():
    """Folds that are balanced before the buffer can leave a class with hardly a training sample after it."""
    samples = layout(3, count=900, classes=6, polygons=90)
    at = np.stack([samples.row, samples.col], axis=1).astype(float)

    def least(fold):
        roles = [roles_of(fold, at, tested, (tested + 1) % 5, 8) for tested in range(5)]
        return min(thinnest(role, samples.label, 6)[1] for role in roles)

    groups = block_groups(samples, 40)
    candidates = [least(assign_groups(groups, samples.label, 5, 6, (1, attempt))) for attempt in range(ATTEMPTS)]
    dealer = Dealer(Splits(), classes=6, buffer_px=8, seed=1, window_px=8, res_m=10.0, grid_shape=SHAPE)
    assert max(candidates) > candidates[0], "the layout shows the difference"
    assert least(dealer.best_folds(samples, groups)) == max(candidates)
