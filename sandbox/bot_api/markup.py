"""A text's markup: what is left to read of it, and what the Bot API says when it is wrong."""

from __future__ import annotations

import html
import re

from sandbox.bot_api.state import Refused

TAGS = frozenset(
    (
        *("a", "b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre"),
        *("blockquote", "span", "tg-spoiler", "tg-emoji"),
    )
)
TAG = re.compile(r"<(/?)([^\s<>]*)(\s?)[^<>]*(>?)")
MARKS = ("```", "`", "__", "||", "_", "*", "~")
NAMES = {
    "```": "Pre",
    "`": "Code",
    "__": "Underline",
    "||": "Spoiler",
    "_": "Italic",
    "*": "Bold",
    "~": "Strikethrough",
    "[": "TextUrl",
}
VERBATIM = ("```", "`")
RESERVED = frozenset("_*[]()~`>#+-=|{}.!")
ESCAPED = re.compile(r"\\([!-~])")
LINK = re.compile(r"\]\((?:[^)\\]|\\.)*\)", re.DOTALL)


def plain(text: str, mode: str) -> str:
    """Return what a reader sees of a text.

    Args:
        text: The text.
        mode: `HTML`, `MarkdownV2`, in any case, or empty: it has no markup.

    Raises:
        Refused: The mode or the markup is none.
    """
    if not mode:
        return text
    if mode.lower() == "html":
        return _html(text)
    if mode.lower() == "markdownv2":
        return _markdown(text)
    raise Refused(400, "Bad Request: unsupported parse_mode")


def _html(text: str) -> str:
    opened: list[str] = []
    for found in TAG.finditer(text):
        slash, name, named, end = found[1], found[2].lower(), found[3], found[4]
        where = f"at byte offset {_bytes(text, found.start())}"
        if not slash and name not in TAGS and (named or end):
            raise _wrong(f'Unsupported start tag "{name}" {where}')
        if not end:
            raise _wrong(f"Unclosed {'end' if slash else 'start'} tag {where}")
        if not slash:
            opened.append(name)
        elif not opened:
            raise _wrong(f"Unexpected end tag {where}")
        elif name not in ("", opened[-1]):
            expected = f'expected "</{opened[-1]}>", found "</{name}>"'
            raise _wrong(f"Unmatched end tag {where}, {expected}")
        else:
            opened.pop()
    if opened:
        raise _wrong(f'Can\'t find end tag corresponding to start tag "{opened[-1]}"')
    return html.unescape(TAG.sub("", text))


def _markdown(text: str) -> str:
    seen: list[str] = []
    opened: list[tuple[str, int]] = []
    at = 0
    while at < len(text):
        last = opened[-1][0] if opened else ""
        mark = next((item for item in MARKS if text.startswith(item, at)), "")
        link = LINK.match(text, at) if last == "[" else None
        if escaped := ESCAPED.match(text, at):
            seen.append(escaped[1])
            at = escaped.end()
        elif last in VERBATIM and mark != last:
            seen.append(text[at])
            at += 1
        elif mark and mark == last:
            opened.pop()
            at += len(mark)
        elif link:
            opened.pop()
            at = link.end()
        elif mark or text[at] == "[":
            opened.append((mark or "[", at))
            at += len(mark or "[")
        elif text[at] == ">" and (at == 0 or text[at - 1] == "\n"):
            at += 1
        elif text[at] in RESERVED:
            why = "is reserved and must be escaped with the preceding '\\'"
            raise _wrong(f"Character '{text[at]}' {why}")
        else:
            seen.append(text[at])
            at += 1
    if opened:
        mark, began = opened[-1]
        where = f"at byte offset {_bytes(text, began)}"
        raise _wrong(f"Can't find end of {NAMES[mark]} entity {where}")
    return "".join(seen)


def _bytes(text: str, index: int) -> int:
    return len(text[:index].encode(errors="surrogatepass"))


def _wrong(why: str) -> Refused:
    return Refused(400, f"Bad Request: can't parse entities: {why}")
