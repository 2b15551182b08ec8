"""Pages that are made from the program itself: settings, commands and error messages.

Three directives without content: ``settings``, ``commands`` and ``error-messages``. Each writes
Markdown from what the code says and has MyST read it, so that no page can fall behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from error_messages import raised_messages
from millie import Config

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from sphinx.application import Sphinx

_HIDDEN = {"help"}


class _Generated(SphinxDirective):
    """A directive whose content is Markdown made here."""

    def lines(self) -> Iterator[str]:
        """The Markdown, line by line."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        content = StringList(list(self.lines()), source=self.get_source_info()[0])
        holder = nodes.Element()
        self.state.nested_parse(content, self.content_offset, holder, match_titles=True)
        return holder.children


class Settings(_Generated):
    """Every field of every stage with its type, default, limits and description."""

    def lines(self) -> Iterator[str]:
        """The Markdown, line by line."""
        for stage, field in Config.model_fields.items():
            model: Any = field.annotation
            yield from ("", f"## {stage}", "", (model.__doc__ or "").strip(), "")
            yield from ("| setting | values | default | meaning |", "|---|---|---|---|")
            for name, one in model.model_fields.items():
                row = (f"`{stage}.{name}`", _values(one), f"`{_toml(one.default)}`", _text(one))
                yield "| " + " | ".join(row) + " |"


def _values(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    limits = [f"{sign} {getattr(one, key):g}" for one in field.metadata
              for key, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
              if getattr(one, key, None) is not None]  # fmt: skip
    return ", ".join([_kind(kind), *limits])


def _kind(kind: Any) -> str:
    """A type in a user's words."""
    words = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    if kind in words:
        return words[kind]
    if get_origin(kind) is tuple:
        return "list"
    options = [one for one in get_args(kind) if one is not type(None)]
    if options:
        return f"{_kind(options[0])}, or none"
    return {"Path": "path"}.get(getattr(kind, "__name__", ""), str(kind))


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _text(field: FieldInfo) -> str:
    return (field.description or "").replace("|", r"\|").replace("*", r"\*")


class Commands(_Generated):
    """Every command with its arguments and options, as the program itself lists them."""

    def lines(self) -> Iterator[str]:
        """The Markdown, line by line."""
        import typer  # noqa: PLC0415

        from millie.cli.commands import app  # noqa: PLC0415

        yield from _commands(typer.main.get_command(app), "millie")


def _commands(command: Any, path: str) -> Iterator[str]:
    if subcommands := getattr(command, "commands", None):
        for name, one in subcommands.items():
            yield from _commands(one, f"{path} {name}")
        return
    yield from ("", f"## {path}", "")
    for paragraph in (command.help or "").split("\n\n"):
        yield from (_prose(paragraph), "")
    rows = [(_spelling(one), _prose(getattr(one, "help", "")), _default(one))
            for one in command.params if one.name not in _HIDDEN]  # fmt: skip
    yield from ("| argument or option | meaning | default |", "|---|---|---|")
    yield from (f"| {name} | {meaning} | {default} |" for name, meaning, default in rows)


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    values = (parameter.metavar or "").replace("|", ", ")
    return f"{names} {values}" if values else names


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    return "" if value in (None, False, (), "") or callable(value) else f"`{value}`"


def _prose(text: str | None) -> str:
    """Help text on one line, without the terminal's marks for bold and colour."""
    words = " ".join((text or "").replace("\b", "").split())
    for mark in ("[bold]", "[/bold]", "[cyan]", "[/cyan]"):
        words = words.replace(mark, "")
    return words.replace("|", r"\|").replace("*", r"\*").replace("<", "&lt;")


class ErrorMessages(_Generated):
    """Every message that the package raises on purpose, by the class of the error."""

    def lines(self) -> Iterator[str]:
        """The Markdown, line by line."""
        by_class: dict[str, set[str]] = {}
        for message in raised_messages():
            by_class.setdefault(message.error, set()).add(message.text)
        for error, texts in sorted(by_class.items()):
            yield from ("", f"## {error}", "")
            yield from (f"- ``{' '.join(text.split())}``" for text in sorted(texts))


_OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./((?!docs/)[^)#\s]+)(?:#[^)]*)?\)")


def name_what_is_outside(_: Sphinx, page: str, source: list[str]) -> None:
    """A link to a file of the repository that is no page becomes its name: the site stands alone.

    On a Git host the same link opens the file.
    """
    if "/" not in page:
        source[0] = _OUTSIDE.sub(r"\1 (`\2` in the repository)", source[0])


def complete_headings(
    _: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document | None
) -> None:
    """Sphinx calls captions of the navigation headings without a level, which readers need."""
    del page, template, tree
    key = "furo_navigation_tree"
    if key in context:
        context[key] = context[key].replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry point."""
    app.add_directive("settings", Settings)
    app.add_directive("commands", Commands)
    app.add_directive("error-messages", ErrorMessages)
    app.connect("source-read", name_what_is_outside)
    app.connect("html-page-context", complete_headings, priority=900)
    return {"parallel_read_safe": True}
