"""Remove the parts of a Markdown file that readers do not see: front matter and template tags."""

from __future__ import annotations

import re
from typing import Any


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Split off the YAML between two lines of `---` at the start of a text.

    Returns:
        The values and the remaining text. The values are empty if there is no front matter or it is not valid YAML.

    Example:
        >>> from rag_ft.documents.front_matter import split_front_matter
        >>> split_front_matter("---\\ntitle: Leave\\n---\\nText")
        ({'title': 'Leave'}, 'Text')
    """
    import yaml

    match = re.match(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", text, re.DOTALL)
    if not match:
        return {}, text
    try:
        values = yaml.safe_load(match[1])
    except Exception:  # a date of month 13 is a ValueError, not a YAMLError
        return {}, text[match.end() :]
    return (values, text[match.end() :]) if isinstance(values, dict) else ({}, text)


def without_template_tags(text: str) -> str:
    """Remove Jekyll, Liquid and Jinja tags and HTML comments from a text. The first quoted text in a tag is kept.

    Example:
        >>> from rag_ft.documents.front_matter import without_template_tags
        >>> without_template_tags('Ask in {% slack_channel "travel" %}.')
        'Ask in travel.'
    """
    text = re.sub(r"\{%-?\s*comment\s*-?%\}.*?\{%-?\s*endcomment\s*-?%\}", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\{%-?\s*(?:include|image\w*)\b[^%]*%\}", "", text)
    # In a Markdown link the tag is the address, which is useless for retrieval: only the text of the link is kept.
    text = re.sub(r"\[([^\[\]]*)\]\(\s*\{%[^%]*%\}[^)\s]*\s*\)", r"\1", text)
    text = re.sub(r"\{%[^%\"']*(?:[\"']([^\"']*)[\"'])?[^%]*%\}", lambda match: match[1] or "", text)
    return re.sub(r"\{\{[^}]*\}\}|\{:[^}\n]*\}", "", text)
