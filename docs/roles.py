"""A hook of mkdocs: names that docstrings mark as Sphinx does (a role, then the name) are shown as plain code."""

import re

_ROLE = re.compile(r":(?:py:)?(?:class|meth|func|mod|data|attr|exc|obj|const):(?=<code>)")


def on_page_content(html: str, **_: object) -> str:
    return _ROLE.sub("", html).replace("<code>~", "<code>")
