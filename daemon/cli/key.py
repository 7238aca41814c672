"""How a command line names a fact: by subject and relation, or by prompt."""

from __future__ import annotations

from typing import Annotated

import typer

from lte_runtime.errors import BadRequest

Subject = Annotated[str | None, typer.Option("--subject", "-s", help="What the fact is about.")]
Relation = Annotated[str | None, typer.Option("--relation", "-r", help="What it says of the subject.")]
Key = Annotated[str | None, typer.Argument(metavar="[KEY]", help="NAMESPACE/SUBJECT/RELATION in one.")]
Prompt = Annotated[
    str | None, typer.Option("--prompt", "-p", help="The question or cloze, instead of subject and relation.")
]


def key_parts(
    namespace: str,
    subject: str | None,
    relation: str | None,
    prompt: str | None,
    key: str | None = None,
) -> tuple[str, str, str]:
    """(namespace, subject, relation), or (namespace, prompt, "") for a fact that a prompt names.

    `key` is `namespace/subject/relation` in one. Raises `BadRequest` for anything that names no fact.
    """
    if key and not (subject or relation or prompt):
        parts = key.split("/")
        if len(parts) == 3 and all(parts):
            return parts[0], parts[1], parts[2]
        raise BadRequest(
            f"{key!r} is not NAMESPACE/SUBJECT/RELATION; "
            "if a name contains a slash, use --subject and --relation"
        )
    if prompt and not (subject or relation or key):
        return namespace, prompt, ""
    if subject and relation and not (prompt or key):
        return namespace, subject, relation
    raise BadRequest(
        "name the fact by --subject and --relation, by --prompt, or by NAMESPACE/SUBJECT/RELATION"
    )
