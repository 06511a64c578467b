"""Markdown that users write, as HTML in which nothing runs, loads or leaves its place. Pure.

Streamlit's own Markdown would load pictures from other hosts, set formulas that can be of any size, and take `:red[…]`
for a command. HTML is shown as it was typed; links lead into this board, to the web or to a mail address.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_LEADING = {"http", "https", "mailto"}


def html(text: str) -> str:
    """The text as HTML in a block of its own."""
    return f'<div class="written" dir="auto">{_reader().render(text)}</div>'


def may_lead_to(address: str) -> bool:
    """Whether a link may have this address: without a scheme it is a page of this board."""
    named = _SCHEME.match(address)
    return not address.startswith(("//", "\\")) if named is None else named[1].lower() in _LEADING


@cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    reader.disable("image")
    reader.validateLink = may_lead_to  # type: ignore[method-assign, assignment]  # how the library has it replaced
    reader.add_render_rule("link_open", _open_link)
    for end in ("heading_open", "heading_close"):
        reader.add_render_rule(end, _lower_heading)
    return reader


def _lower_heading(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """What is written stands below the page's own headings."""
    token = tokens[index].copy()
    token.tag = f"h{min(6, int(token.tag[1]) + 3)}"
    return self.renderToken([*tokens[:index], token, *tokens[index + 1 :]], index, options, env)


def _open_link(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """Links tell the other side nothing of this board."""
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return self.renderToken(tokens, index, options, env)
