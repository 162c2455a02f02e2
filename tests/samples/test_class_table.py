"""Class tables from recipes and from reference values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetmap.errors import RecipeError, ReferenceDataError
from wetmap.recipe import Background, ClassSpec
from wetmap.samples.class_table import class_of, codes_by_value, resolve_classes, value_key, with_background


def test_recipe_order_gives_codes_from_one_and_the_recipe_may_say_otherwise():
    table = resolve_classes([ClassSpec(name="bog"), ClassSpec(name="fen", code=7), ClassSpec(name="water")], [])
    assert [(row.name, row.code) for row in table] == [("bog", 1), ("fen", 7), ("water", 3)]


def test_recipe_colour_wins_over_the_palette_and_palette_colours_differ():
    table = resolve_classes([ClassSpec(name="bog", colour="#ABCDEF"), ClassSpec(name="fen"), ClassSpec(name="x")], [])
    assert table[0].colour == "#ABCDEF"
    assert len({row.colour for row in table}) == 3


def test_upland_is_what_the_recipe_says_or_what_the_name_says():
    specs = [ClassSpec(name="Upland forest"), ClassSpec(name="rock", upland=True), ClassSpec(name="fen")]
    assert [row.upland for row in resolve_classes(specs, [])] == [True, True, False]


def test_values_become_classes_in_order_and_case_does_not_split_them():
    table = resolve_classes([], ["fen ", "Bog", "bog", "FEN", "marsh"])
    assert [(row.code, row.name) for row in table] == [(1, "Bog"), (2, "FEN"), (3, "marsh")]


def test_whole_numbers_keep_their_codes_in_numeric_order():
    assert [(row.code, row.name) for row in resolve_classes([], [10.0, 9, "30", 9.0])] == [
        (9, "9"),
        (10, "10"),
        (30, "30"),
    ]


def test_numbers_that_are_no_codes_are_numbered_from_one():
    assert [(row.code, row.name) for row in resolve_classes([], [0, 300, 5])] == [(1, "0"), (2, "300"), (3, "5")]


@given(st.lists(st.one_of(st.integers(-5, 300), st.text(max_size=5), st.floats(0, 9)), min_size=1, max_size=30))
def test_derived_classes_do_not_depend_on_order_and_cover_every_value(values):
    try:
        table = resolve_classes([], values)
    except ReferenceDataError:
        assert all(not value_key(value) for value in values)
        return
    assert table == resolve_classes([], values[::-1] + values)
    by_value = codes_by_value([], table)
    assert {by_value[value_key(value)] for value in values if value_key(value)} == {row.code for row in table}


def test_reference_values_match_trimmed_and_without_case():
    specs = [ClassSpec(name="bog", reference=["BO ", 3]), ClassSpec(name="Fen")]
    codes = codes_by_value(specs, resolve_classes(specs, []))
    assert codes[value_key("bo")] == codes[value_key(3.0)] == codes[value_key("3")] == 1
    assert codes[value_key(" fen")] == 2
    assert value_key("bog") not in codes


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([ClassSpec(name="bog"), ClassSpec(name="Bog ")], ["number 1", "number 2", "share the name"]),
        ([ClassSpec(name="bog", code=2), ClassSpec(name="fen")], ["'bog'", "'fen'", "share the code 2"]),
        ([ClassSpec(name=str(number)) for number in range(255)], ["255 classes", "254"]),
    ],
)
def test_contradicting_classes_are_refused(specs, words):
    with pytest.raises(RecipeError) as caught:
        resolve_classes(specs, [])
    assert all(word in str(caught.value) for word in words)


def test_a_value_of_two_classes_is_refused():
    specs = [ClassSpec(name="bog", reference=["BO", "PT"]), ClassSpec(name="fen", reference=["pt"])]
    with pytest.raises(RecipeError, match="'bog' and 'fen' both claim the reference value 'pt'"):
        codes_by_value(specs, resolve_classes(specs, []))


def test_an_identifier_is_not_a_class_field():
    with pytest.raises(ReferenceDataError, match=r"300 distinct values.*--class-field names the class"):
        resolve_classes([], [f"id-{number}" for number in range(300)])


def test_empty_values_make_no_class():
    with pytest.raises(ReferenceDataError, match="every value is empty"):
        resolve_classes([], [" ", ""])


def test_background_gets_the_next_code_and_is_upland():
    table = with_background(resolve_classes([], ["bog", "fen"]), Background(name="dry land"))
    assert (table[-1].name, table[-1].code, table[-1].upland) == ("dry land", 3, True)
    assert len({row.colour for row in table}) == 3


def test_background_takes_a_free_code_when_the_last_is_taken():
    table = with_background(resolve_classes([ClassSpec(name="bog", code=254)], []), Background())
    assert table[-1].code == 1


def test_background_of_a_class_that_is_there_marks_it_upland():
    table = with_background(resolve_classes([], ["bog", "Forest"]), Background(name="forest"))
    assert [(row.name, row.upland) for row in table] == [("bog", False), ("Forest", True)]
    assert with_background(table, None) == table


def test_a_class_is_found_by_name_whatever_its_case():
    table = resolve_classes([], ["bog", "fen"])
    assert class_of(table, " FEN").code == 2
    with pytest.raises(RecipeError, match="no class 'marsh' among bog, fen"):
        class_of(table, "marsh")
