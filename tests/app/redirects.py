"""Where a page under test sends the browser."""

import json
from typing import Any

from streamlit.testing.v1 import AppTest


def asked(at: AppTest) -> dict[str, Any] | None:
    """The address that the page asks the browser to show, with what is set in it; None where it asks for none."""
    given = [json.loads(element.proto.json) for element in at.get("bidi_component")]
    found = [{name: told[name] for name in ("address", "set", "replace")} for told in given if "address" in told]
    assert len(found) <= 1
    return found[0] if found else None
