"""What the Submit page shows of a task's data."""

from streamlit.testing.v1 import AppTest


def shown(script) -> AppTest:
    at = AppTest.from_function(script, default_timeout=30).run()
    assert not at.exception
    return at


def test_sequences_are_shown_with_their_answers_and_what_guessing_gives(store):
    def script():
        from app.screens.submit import uploads

        uploads.draw_task_preview({"source": "builtin:long-recall", "length": 64, "pairs": 3, "vocabulary": 4})

    at = shown(script)
    assert "16,384 train" in at.markdown[0].value
    chance = next(caption.value for caption in at.caption if "Chance" in caption.value)
    assert chance.startswith("Chance accuracy, guessing any value: 25.0 %, the value that most")
    answers, _, text = at.text[0].value.partition(": ")
    assert len(answers) == 3 and text.endswith(answers[-1]) and len(text) == 65


def test_what_does_not_fit_is_said(store):
    def script():
        from app.screens.submit import uploads

        uploads.draw_task_preview({"source": "builtin:long-recall", "pairs": 99})

    assert "Exceeds the 16 distinct keys" in shown(script).markdown[0].value
