"""Normalise white space, to compare texts."""


def one_line(text: str) -> str:
    """Return a text with single spaces, to compare texts regardless of line breaks.

    Example:
        >>> from rag_ft.dataset.text.whitespace import one_line
        >>> one_line(" Leave is\\n booked.")
        'Leave is booked.'
    """
    return " ".join(text.split())
