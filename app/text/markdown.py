"""User-written Markdown as safe HTML: no scripts, no loaded resources, no layout outside its block. Pure.

Streamlit's own Markdown would load images from other hosts, render formulas of any size, and interpret `:red[…]`. HTML
is shown as typed; links may lead to pages of Slimboard, to the web or to a mail address.
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
    """The text as a block of HTML."""
    return f'<div class="written" dir="auto">{_reader().render(text)}</div>'


def may_lead_to(address: str) -> bool:
    """Whether a link may have this URL; without a scheme it is a page of Slimboard."""
    named = _SCHEME.match(address)
    return not address.startswith(("//", "\\")) if named is None else named[1].lower() in _LEADING


@cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    reader.disable("image")
    reader.validateLink = may_lead_to  # type: ignore[method-assign, assignment]  # the library's documented way to replace it
    reader.add_render_rule("link_open", _open_link)
    for end in ("heading_open", "heading_close"):
        reader.add_render_rule(end, _lower_heading)
    return reader


def _lower_heading(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """Make headings lower than the page's own ones."""
    token = tokens[index].copy()
    token.tag = f"h{min(6, int(token.tag[1]) + 3)}"
    return self.renderToken([*tokens[:index], token, *tokens[index + 1 :]], index, options, env)


def _open_link(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """Open a link that does not disclose this page to the other site."""
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return self.renderToken(tokens, index, options, env)
