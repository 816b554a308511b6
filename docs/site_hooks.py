"""Hooks of the site: its first page is README, and links to files outside of docs/ go to the repository.

A link to a file that is not there is a warning, which `mkdocs build --strict` fails on. Where the repository's URL is not known
(`REPOSITORY_URL`), the link's text remains. The page of messages is every sentence with which the code refuses something.
"""

import ast
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import jieba

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s#]*)(#[^)\s]*)?\)")
SWITCH = re.compile(r"(?: ·)? ?\[(?:中文|English)\]\([\w./-]+\.md\)[.。，]? ?")
"""To the same page in the other language: the site has a switch of its own."""
BADGES = re.compile(r"^\[!\[.*\n", re.MULTILINE)
READMES = {"index.md": "README.md", "index.zh.md": "README.zh.md"}
MESSAGES = {"messages.md", "messages.zh.md"}
CODE = ("stages", "tuneline", "chat")
log = logging.getLogger("mkdocs.hooks")
# The search splits Chinese with it; each build would else say where its dictionary lies.
jieba.setLogLevel(logging.WARNING)


def messages() -> str:
    """Every sentence of an error that is raised, as written in the code: what varies stands as …."""
    lines: list[str] = []
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        raised = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Raise)]
        found = [
            text
            for node in raised
            if isinstance(node.exc, ast.Call)
            for text in map(_text, node.exc.args[:1])
            if len(text) > 20
        ]
        if found:
            lines += [f"## `{path.relative_to(ROOT)}`", "", *(f"- {_escaped(text)}" for text in found), ""]
    return "\n".join(lines)


def _text(node: ast.AST) -> str:
    """Of a string, an f-string or a sum of them."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    source = page.file.src_uri
    readme = READMES.get(source)
    if readme:
        markdown = BADGES.sub("", (ROOT / readme).read_text(encoding="utf-8"))
    if source in MESSAGES:
        markdown += "\n" + messages()
    markdown = SWITCH.sub("", markdown)
    folder = "" if readme else posixpath.join("docs", posixpath.dirname(source))
    return LINK.sub(lambda match: _link(match, folder, source, config["repo_url"]), markdown)


def _link(match: re.Match[str], folder: str, source: str, repository: str | None) -> str:
    image, text, target, anchor = match.group(1), match.group(2), match.group(3), match.group(4) or ""
    path = posixpath.normpath(posixpath.join(folder, target))
    if path.startswith("docs/") and not (ROOT / path).is_dir():
        # The other language's file is the same page there.
        path = path.replace(".zh.md", ".md")
        inside = posixpath.relpath(path, posixpath.join("docs", posixpath.dirname(source)))
        return f"{image}[{text}]({inside}{anchor})"
    if not (ROOT / path).exists():
        log.warning("%s links to %s, which is not there", source, target)
    return f"[{text}]({repository.rstrip('/')}/blob/main/{path}{anchor})" if repository else text
