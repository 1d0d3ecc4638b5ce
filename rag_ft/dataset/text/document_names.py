"""Match the name of a document as people write it: a part of its path, an address, another case, its title."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import NamedTuple
from urllib.parse import unquote

from rag_ft.dataset.text.whitespace import one_line
from rag_ft.errors import UnknownIdError

MAX_SHOWN = 3
"""Maximum number of names in an error message."""

MAX_NAME_LENGTH = 1_000
"""Maximum length of a name that is compared. A longer one must be equal."""

MAX_SCANNED = 64
"""Maximum number of documents with the same file name that are compared one by one. More are grouped by folder."""

MAX_COMPARED = 400
"""Maximum number of names that are compared with an unknown one. Of more names, those beside it in the alphabet are."""

MAX_NEAREST = 100
"""Maximum number of unknown names for which near ones are searched. More belong to another corpus."""

_SCHEME = re.compile(r"[A-Za-z][\w+.-]+:/+(?:www\.)?")
_DRIVE = re.compile(r"[A-Za-z]:")
_SUFFIX = re.compile(r"(?<=.)\.[^\W\d_][^\W_]{0,4}$")
_PAGE = re.compile(
    r"(?<!\w)(?:pp?\.?|pages?|pg\.?|s\.|seiten?|slides?) ?\d+(?: ?[-\u2013] ?\d+)? ?[)\]]?$", re.IGNORECASE
)
_BEFORE_PAGE = re.compile(r"(?: [-\u2013]|[ ,;:(\[])+$")
# Digits alone are no anchor: "leave.md#3" is the id of a passage.
_ANCHOR = re.compile(r"#(?!\d+$)[^#\s,;|]*$")
_QUERY = re.compile(r"\?[^?\s,;|]*$")
_WRAPPERS = (
    '""', "''", "``", "()", "[]", "{}", "<>", "\u201c\u201d", "\u2018\u2019", "\u201e\u201c", "\u201a\u2018",
    "\u00ab\u00bb", "\u00bb\u00ab", "\u300c\u300d", "\u300e\u300f", "\u300a\u300b",
)  # fmt: skip


class _Rank(NamedTuple):
    """How well a name matches a document. The larger, the better.

    Attributes:
        shared: number of equal parts at the end of both paths.
        is_whole: 1 if neither path has more parts.
        has_suffix: 1 if the file names are equal with their suffixes.
        has_case: 1 if the equal parts have the same case.
    """

    shared: int
    is_whole: int
    has_suffix: int
    has_case: int


class DocumentNames:
    """Match names as people write them to the names of documents.

    A name matches a document if one of both paths ends with the other (`fmla.md`, `docs/leave/fmla.md` and
    `C:\\docs\\leave\\fmla.md` match `leave/fmla.md`), in any case, with or without the suffix of the file. It may be an
    address, have an anchor or a page at its end, or stand in quotes. An equal name always wins. Otherwise the document
    whose path has most in common with it wins, and two that match equally well are an error: nothing is guessed.

    Args:
        documents: the names of the documents.
        aliases: other names, such as titles or absolute paths -> the documents that they name.

    Example:
        >>> from rag_ft.dataset.text.document_names import DocumentNames
        >>> names = DocumentNames(["leave/fmla.md", "leave/sick.md"], {"Sick leave": ["leave/sick.md"]})
        >>> names.find("docs\\\\leave\\\\FMLA.md#notice"), names.find("fmla"), names.find("sick leave, p. 3")
        ('leave/fmla.md', 'leave/fmla.md', 'leave/sick.md')
    """

    def __init__(self, documents: Iterable[str], aliases: Mapping[str, Collection[str]] | None = None) -> None:
        self._documents = dict.fromkeys(documents)
        self._aliases = aliases or {}
        self._found: dict[str, list[str]] = {}
        self._by_folder: dict[str, dict[str, list[str]]] = {}
        self._nearest: dict[str, list[str]] = {}

    def find(self, name: str) -> str:
        """Return the document with a name.

        Raises:
            UnknownIdError: if no document matches, or several match equally well. The message names up to three.

        Example:
            >>> from rag_ft.dataset.text.document_names import DocumentNames
            >>> names = DocumentNames(["leave/fmla.md", "old/fmla.md"])
            >>> names.find("fmla.md")
            Traceback (most recent call last):
                ...
            rag_ft.errors.UnknownIdError: 'fmla.md' may be 'leave/fmla.md' or 'old/fmla.md': write more of the path
        """
        matches = self.matches(name)
        if len(matches) != 1:
            raise UnknownIdError(f"{name!r:.80} {self.why_not(name)}")
        return matches[0]

    def matches(self, name: str) -> list[str]:
        """Return the documents that match a name best: one if it is clear, several if it is not.

        Example:
            >>> from rag_ft.dataset.text.document_names import DocumentNames
            >>> names = DocumentNames(["leave/fmla.md", "old/fmla.md"])
            >>> names.matches("fmla"), names.matches("x/old/fmla.md"), names.matches("badges")
            (['leave/fmla.md', 'old/fmla.md'], ['old/fmla.md'], [])
        """
        if name in self._documents:
            return [name]
        if name not in self._found:
            self._found[name] = self._matches(name)
        return self._found[name]

    def why_not(self, name: str) -> str:
        """Say why a name does not match one document, and which documents it may mean.

        Example:
            >>> from rag_ft.dataset.text.document_names import DocumentNames
            >>> DocumentNames(["leave/fmla.md"]).why_not("fmal.md")
            "is not a document or passage (the nearest: 'leave/fmla.md')"
        """
        if matches := self.matches(name):
            more = f" or {len(matches) - MAX_SHOWN} more" if len(matches) > MAX_SHOWN else ""
            return f"may be {' or '.join(map(_quoted, matches[:MAX_SHOWN]))}{more}: write more of the path"
        nearest = ", ".join(map(_quoted, self._near(name)))
        return "is not a document or passage" + (f" (the nearest: {nearest})" if nearest else "")

    def _matches(self, name: str) -> list[str]:
        named = self._named(name)
        if len(named) == 1:
            return named
        if len(name) <= MAX_NAME_LENGTH:
            for form in _forms(name):
                if found := self._best(form):
                    return found
        return []

    def _best(self, form: str) -> list[str]:
        """Return the documents that match one form of a name best."""
        if form in self._documents:
            return [form]
        ranks: dict[str, _Rank] = {}
        for name, rank in self._ranked(form):
            for document in self._named(name):
                # A document may match by its name, its path and its title: the best of each counts.
                ranks[document] = _Rank(*map(max, rank, ranks.get(document, rank)))
        if not ranks:
            return []
        # The best document is at least as good as any other in each respect. Otherwise it is a guess.
        top = tuple(max(column) for column in zip(*(rank[:3] for rank in ranks.values()), strict=True))
        best = [document for document, rank in ranks.items() if rank[:3] == top]
        cased = [document for document in best if ranks[document].has_case]
        return sorted((cased if len(cased) == 1 else best) or ranks)

    def _ranked(self, form: str) -> Iterator[tuple[str, _Rank]]:
        """Yield (name, rank) of each name of a document that matches a form."""
        parts = _parts(form)
        for name in self._titled.get(_folded(one_line(form)), ()):
            yield name, _Rank(max(1, len(parts)), True, True, name == form)
        for name in self._candidates(parts) if parts else ():
            if (rank := _rank(parts, _parts(name))) is not None:
                yield name, rank

    def _named(self, name: str) -> list[str]:
        """Return the documents that exactly this name stands for."""
        if name in self._documents:
            return [name]
        return [document for document in self._aliases.get(name, ()) if document in self._documents]

    def _candidates(self, parts: list[str]) -> Iterable[str]:
        """Return the names with the same file name, without its suffix. They may be in other folders."""
        last = _folded(parts[-1])
        for stem in dict.fromkeys((last, _stem(last), _stem(_stem(last)))):
            names = self._by_stem.get(stem, ())
            if isinstance(names, str):
                yield names
            elif len(parts) == 1 or len(names) <= MAX_SCANNED:
                yield from names
            else:
                folders = self._by_folder.get(stem) or self._by_folder.setdefault(stem, _by_folder(names))
                yield from (*folders.get(_folded(parts[-2]), ()), *folders.get("", ()))

    @cached_property
    def _by_stem(self) -> dict[str, str | list[str]]:
        """Folded file name without its suffix -> the name with it, or the names."""
        found: dict[str, str | list[str]] = {}
        paths = (alias for alias in self._aliases if alias not in self._documents and _is_path(alias))
        for name in (*self._documents, *paths):
            if len(name) > MAX_NAME_LENGTH or not (parts := _parts(name)):
                continue
            stem = _stem(_folded(parts[-1]))
            earlier = found.setdefault(stem, name)
            if isinstance(earlier, list):
                earlier.append(name)
            elif earlier != name:
                found[stem] = [earlier, name]
        return found

    @cached_property
    def _titled(self) -> dict[str, list[str]]:
        """Folded alias -> the aliases that are titles or ids, in which a slash separates no folders."""
        found: dict[str, list[str]] = {}
        for alias in self._aliases:
            if len(alias) <= MAX_NAME_LENGTH and not _is_path(alias):
                found.setdefault(_folded(one_line(alias)), []).append(alias)
        return found

    def _near(self, name: str) -> list[str]:
        """Return documents whose file name or title is similar to an unknown name."""
        if name not in self._nearest and len(self._nearest) < MAX_NEAREST:
            near: dict[str, None] = {}
            plain = _forms(name[:MAX_NAME_LENGTH])[-1]
            for word in (_folded(plain), *(_stem(_folded(part)) for part in _parts(plain)[-1:])):
                for key in get_close_matches(word, self._alphabet.beside(word), MAX_SHOWN):
                    names = self._by_stem.get(key, ())
                    for similar in (*([names] if isinstance(names, str) else names), *self._titled.get(key, ())):
                        near |= dict.fromkeys(self._named(similar))
                        if len(near) >= MAX_SHOWN:
                            break
            self._nearest[name] = list(near)[:MAX_SHOWN]
        return self._nearest.get(name, [])

    @cached_property
    def _alphabet(self) -> _Alphabet:
        return _Alphabet({*self._by_stem, *self._titled})


class _Alphabet:
    """Words in alphabetical order, from the front and from the back."""

    def __init__(self, words: Collection[str]) -> None:
        self._words = sorted(words)
        self._reversed = sorted(word[::-1] for word in words) if len(words) > MAX_COMPARED else []

    def beside(self, word: str) -> list[str]:
        """Return the words that begin or end most like a word. Few words are all returned."""
        if not self._reversed:
            return self._words
        half = MAX_COMPARED // 4
        front, back = bisect(self._words, word), bisect(self._reversed, word[::-1])
        beside = self._words[max(0, front - half) : front + half]
        beside += [found[::-1] for found in self._reversed[max(0, back - half) : back + half]]
        return list(dict.fromkeys(beside))


def split_names(cell: str, is_known: Callable[[str], bool]) -> list[str]:
    """Return the names in a cell: the cell itself, or its parts if they are known and the whole is not.

    Args:
        cell: one name, or several with semicolons, bars, line breaks or commas between them. A name may contain them
            too, so the whole cell is tried first.
        is_known: whether a name is that of one document.

    Example:
        >>> from rag_ft.dataset.text.document_names import split_names
        >>> known = {"a.md", "Leave, paid", "b.md"}
        >>> split_names("a.md; b.md", known.__contains__), split_names("Leave, paid|a.md", known.__contains__)
        (['a.md', 'b.md'], ['Leave, paid', 'a.md'])
        >>> split_names("Leave, unpaid", known.__contains__)
        ['Leave, unpaid']
    """
    if is_known(cell):
        return [cell]
    for parts in _splits(cell):
        names = [name for part in parts for name in split_names(part, is_known)]
        # A part of an unknown name may be the name of another document, so all parts must be known.
        if all(map(is_known, names)):
            return names
    return [cell]


def unknown_name(cell: str, is_known: Callable[[str], bool]) -> str:
    """Return the part of a cell that is not known if others are; otherwise the cell.

    Example:
        >>> from rag_ft.dataset.text.document_names import unknown_name
        >>> unknown_name("a.md; x.md", {"a.md"}.__contains__), unknown_name("x, y", {"a.md"}.__contains__)
        ('x.md', 'x, y')
    """
    for parts in _splits(cell):
        unknown = [part for part in parts if not is_known(part)]
        if 0 < len(unknown) < len(parts):
            return unknown[0]
    return cell


def _splits(cell: str) -> Iterator[list[str]]:
    for separators in (r"[;|\r\n]", ","):
        parts = [part.strip() for part in re.split(separators, cell) if part.strip()]
        if len(parts) > 1:
            yield parts


def _forms(name: str) -> list[str]:
    """Return a name as it is, and without what people put around it, in all combinations."""
    forms = [one_line(name)]
    for strip in (_unwrapped, _decoded, _without_page, _without_anchor, _without_query, _unwrapped):
        forms += [stripped for form in forms if (stripped := strip(form)) and stripped not in forms]
    return forms


def _unwrapped(name: str) -> str:
    while len(name) > 2 and name[0] + name[-1] in _WRAPPERS:
        name = name[1:-1].strip()
    return name


def _decoded(name: str) -> str:
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError:
        return name


def _without_page(name: str) -> str:
    found = _PAGE.search(name)
    return _BEFORE_PAGE.sub("", name[: found.start()]) if found else name


def _without_anchor(name: str) -> str:
    return _ANCHOR.sub("", name).strip()


def _without_query(name: str) -> str:
    return _QUERY.sub("", name).strip()


def _parts(name: str) -> list[str]:
    """Return the parts of a path or address, without scheme and drive. The first of an address is its host."""
    text = one_line(name)
    if scheme := _SCHEME.match(text):
        text = _decoded(text[scheme.end() :])
    parts: list[str] = []
    for part in text.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part.strip() not in ("", "."):
            parts.append(part.strip())
    return parts[1:] if len(parts) > 1 and _DRIVE.fullmatch(parts[0]) else parts


def _rank(asked: list[str], own: list[str]) -> _Rank | None:
    """Compare the path that a person wrote with that of a document. None: it is another document."""
    last, own_last = _folded(asked[-1]), _folded(own[-1])
    has_suffix = last == own_last
    if not has_suffix and _stem(own_last) != last and _stem(last) != own_last:
        return None
    shared = min(len(asked), len(own))
    folders = list(zip(asked[-shared:-1], own[-shared:-1], strict=True))
    if any(_folded(folder) != _folded(own_folder) for folder, own_folder in folders):
        return None
    has_case = all(folder == own_folder for folder, own_folder in folders)
    has_case = has_case and (asked[-1] == own[-1] or _stem(asked[-1]) == _stem(own[-1]))
    return _Rank(shared, len(asked) == len(own), has_suffix, has_case)


def _by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by the last folder of their path; empty without a folder."""
    found: dict[str, list[str]] = {}
    for name in names:
        parts = _parts(name)
        found.setdefault(_folded(parts[-2]) if len(parts) > 1 else "", []).append(name)
    return found


def _is_path(alias: str) -> bool:
    """Return whether an alias is a path, an address or a file name, and not a title or an id."""
    text = alias.strip()
    return bool(text[:1] in ("/", "\\") or _SUFFIX.search(text) or _SCHEME.match(text) or re.match(r"\w:[/\\]", text))


def _stem(part: str) -> str:
    return _SUFFIX.sub("", part)


def _folded(text: str) -> str:
    """Return a text in one case and one Unicode form, to compare names."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFC", decomposed)


def _quoted(name: str) -> str:
    return f"{name!r:.80}"
