"""Menus of settings that stand in the address."""

from streamlit.testing.v1 import AppTest

HOSTILE = "[a](http://x) <b> *c*"


def page(hostile):
    from app.web import url_state

    url_state.draw_menu("Task", "of", ["plain", hostile], url_state.text("of") or "plain")


def test_a_click_puts_the_value_itself_into_the_address():
    at = AppTest.from_function(page, args=(HOSTILE,)).run()
    assert at.menu_button[0].label == ":gray[Task:] plain"
    at.menu_button[0].click(HOSTILE).run()
    assert at.query_params["of"] == HOSTILE


def test_names_are_shown_as_they_stand():
    at = AppTest.from_function(page, args=(HOSTILE,))
    at.query_params["of"] = HOSTILE
    [button] = at.run().menu_button
    for text in (button.label.removeprefix(":gray[Task:]"), button.proto.options[1]):
        assert r"\[a\](http\:" in text and r"\<b\>" in text and r"\*c\*" in text
    assert button.proto.options[1].startswith("**") and not button.proto.options[0].startswith("**")
