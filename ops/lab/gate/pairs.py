"""Pairs of a question and a view for training the relevance model, with what the question asks of the view.

Names are taken out of both. A pair has three labels: `asks` (the view's current value), `earlier` (a value
that it had before), `beyond` (something else of the thing that the view describes: "the currency of the home
country of it" beside "The home country of it"). Negatives are questions that are easily confused: about
another relation of the same kind of thing, near questions written by hand, negated or reversed ones, names
that go on behind the place of the name.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lte_runtime.align.stock import relations
from lte_runtime.align.stock.everyday import kinds
from ops.lab.gate import gate_data

NAME = "it"
"""Stands where the subject's name was."""
_HERE = Path(__file__).parent
_BACK = re.compile(r"\b(former|formerly|previous|previously|before|earlier|used to|old|originally)\b", re.I)


@dataclass(frozen=True, slots=True)
class Pair:
    """`relation` names what the view tells, for splits by relation; `sort` says where the pair is from."""

    question: str
    view: str
    asks: float = 0.0
    earlier: float = 0.0
    beyond: float = 0.0
    relation: str = ""
    sort: str = ""
    weight: float = 1.0


@dataclass(slots=True)
class Topic:
    """One relation: the questions that ask for it, those near it that do not, in texts with `{s}`.

    Topics of one `group` are about the same kind of thing, so that the questions of one are no questions of
    another, but where they share a wording.
    """

    noun: str
    asking: tuple[str, ...]
    near: tuple[str, ...]
    group: str
    language: str = "en"
    views: tuple[str, ...] = ()
    former: tuple[str, ...] = field(default=())


_PLAIN = {
    "en": (
        *gate_data.PLAIN,
        *dict.fromkeys(relations.QUESTIONS),
        "What {n} does {s} have?",
        "Which is the {n} of {s}?",
    ),
    "de": (
        "Was ist {n} von {s}?",
        "{n} von {s}",
        "{s} {n}",
        "Welche {n} hat {s}?",
        "Wie lautet bei {s}: {n}?",
        "Kennst du {n} von {s}?",
        "Nenne mir {n} von {s}.",
    ),
    "fr": (
        "Quel est le {n} de {s} ?",
        "Quelle est la {n} de {s} ?",
        "{n} de {s}",
        "{s} {n}",
        "Connais-tu le {n} de {s} ?",
        "Donne-moi la {n} de {s}.",
    ),
    "es": (
        "¿Cuál es el {n} de {s}?",
        "¿Cuál es la {n} de {s}?",
        "{n} de {s}",
        "{s} {n}",
        "¿Qué {n} tiene {s}?",
        "Dime el {n} de {s}.",
    ),
}
_FORMER = {
    "en": (
        "What was the previous {n} of {s}?",
        "What was the former {n} of {s}?",
        "Who or what was the {n} of {s} before?",
        "What did {s} have as its {n} earlier?",
        "What was the old {n} of {s}?",
        "What was the {n} of {s} originally?",
        "What used to be the {n} of {s}?",
        "What was the {n} of {s} before {t}?",
        "What was {s}'s {n} before it changed?",
        "What was the {n} of {s} prior to that?",
        "Who was the former {n} of {s}?",
        "Who was the {n} of {s} before {t}?",
        "Which {n} did {s} have until last year?",
        "the previous {n} of {s}",
        "What was the {n} of {s} in the past?",
        "Which {n} came before the present one of {s}?",
        "What was the last {n} of {s} before the current one?",
    ),
    "de": (
        "Was war früher {n} von {s}?",
        "Was war {n} von {s} vorher?",
        "Wer war vorher {n} von {s}?",
        "Was war {n} von {s} vor {t}?",
        "ehemalige {n} von {s}",
        "Welche {n} hatte {s} zuvor?",
    ),
    "fr": (
        "Quel était l'ancien {n} de {s} ?",
        "Quelle était la {n} précédente de {s} ?",
        "Qui était {n} de {s} avant {t} ?",
        "Quel était le {n} de {s} auparavant ?",
    ),
    "es": (
        "¿Cuál era el {n} anterior de {s}?",
        "¿Quién era antes {n} de {s}?",
        "¿Cuál era la antigua {n} de {s}?",
        "¿Cuál era el {n} de {s} antes de {t}?",
    ),
}
_FORMER_TAILS = {
    "en": (
        "before",
        "previously",
        "formerly",
        "in the past",
        "before {t}",
        "earlier",
        "until last year",
        "before that",
        "originally",
    ),
    "de": ("vorher", "früher", "zuvor", "vor {t}", "ehemals", "ursprünglich"),
    "fr": ("avant", "auparavant", "avant {t}", "autrefois", "à l'origine"),
    "es": ("antes", "anteriormente", "antes de {t}", "en el pasado", "originalmente"),
}
_NOW = {
    "en": ("now", "today", "at present", "currently", "these days", "right now", "at the moment", "nowadays"),
    "de": ("jetzt", "heute", "derzeit", "zurzeit", "aktuell", "gerade"),
    "fr": ("maintenant", "aujourd'hui", "actuellement", "en ce moment"),
    "es": ("ahora", "hoy", "actualmente", "en este momento"),
}
_FUTURE = {
    "en": ("next year", "in the future", "after that", "one day", "from next month"),
    "de": ("nächstes Jahr", "in Zukunft", "danach", "später"),
    "fr": ("l'année prochaine", "à l'avenir", "plus tard", "ensuite"),
    "es": ("el año que viene", "en el futuro", "después", "más tarde"),
}
_NOT = {
    "en": (
        *(t for t in gate_data.REVERSED if not _BACK.search(t)),
        *gate_data.ABOUT,
        "Is {t} the {n} of {s}?",
        "Is the {n} of {s} before {t}?",
        "Who will be the next {n} of {s}?",
        "What will be the future {n} of {s}?",
        "What was the first {n} of {s}?",
        "Who was the very first {n} of {s}?",
        "Who is the second {n} of {s}?",
        "What is the planned {n} of {s}?",
        "How often does the {n} of {s} change?",
        "Since when has {s} had its {n}?",
        "Who is the deputy of the {n} of {s}?",
        "Which companies have the same {n} as {s}?",
        "What has {s} for a {n}?",
        "Why does {s} have this {n}?",
        "How was the {n} of {s} chosen?",
        "Where does the {n} of {s} come from?",
        "Who knows the {n} of {s}?",
        "How does the {n} of {s} compare with others?",
        "Whose {n} is {s}?",
        "Of what is {s} the {n}?",
    ),
    "de": (
        "Wer ist nicht {n} von {s}?",
        "Welche {n} hat {s} nicht?",
        "Warum wurde {n} von {s} geändert?",
        "Wann wurde {n} von {s} geändert?",
        "Wer entscheidet über {n} von {s}?",
        "Wer wird nächster {n} von {s}?",
        "Was war die erste {n} von {s}?",
        "Warum hat {s} diese {n}?",
        "Wie oft ändert sich {n} von {s}?",
        "Wer hat {n} von {s} abgelehnt?",
        "Wessen {n} ist {s}?",
    ),
    "fr": (
        "Quel n'est pas le {n} de {s} ?",
        "Pourquoi la {n} de {s} a-t-elle changé ?",
        "Quand le {n} de {s} a-t-il changé ?",
        "Qui décide du {n} de {s} ?",
        "Qui sera le prochain {n} de {s} ?",
        "Quel était le premier {n} de {s} ?",
        "Qui a refusé le {n} de {s} ?",
        "De quoi {s} est-il le {n} ?",
    ),
    "es": (
        "¿Cuál no es el {n} de {s}?",
        "¿Por qué cambió el {n} de {s}?",
        "¿Cuándo cambió la {n} de {s}?",
        "¿Quién decide sobre el {n} de {s}?",
        "¿Quién será el próximo {n} de {s}?",
        "¿Cuál fue el primer {n} de {s}?",
        "¿Quién rechazó el {n} de {s}?",
        "¿De qué es {s} el {n}?",
    ),
}
_POLITE = {
    "en": (
        "Please tell me: {q}",
        "Hi, {q}",
        "{q} Thanks!",
        "Quick question: {q}",
        "I would like to know: {q}",
        "Do you know {q}",
        "One more thing, {q}",
        "I forgot: {q}",
        "Hello! {q} Please answer briefly.",
    ),
    "de": ("Weißt du, {q}", "Bitte sag mir: {q}", "Kurze Frage: {q}", "Hallo, {q} Danke!"),
    "fr": ("Dis-moi : {q}", "Bonjour, {q} Merci !", "Je voudrais savoir : {q}"),
    "es": ("Dime: {q}", "Hola, {q} ¡Gracias!", "Quisiera saber: {q}"),
}
_AND_MORE = (
    "Labs",
    "North",
    "II",
    "2",
    "Junior",
    "Mini",
    "West",
    "B",
    "Foundation",
    "Street",
    "3000",
    "Group",
)
_CLAUSES = {
    "en": ("the {a} of {s}", "the {a} of {s}", "{s}'s {a}", "the {a} that {s} has"),
    "de": ("{a} von {s}",),
    "fr": ("le {a} de {s}", "la {a} de {s}"),
    "es": ("el {a} de {s}", "la {a} de {s}"),
}
_KINDS = (
    "company firm shop town village river bridge ship ferry train film book novel album band choir club team museum "
    "school course project server program product machine wine cheese festival race prize law treaty case patient"
).split()
"""What may stand before a name in a question: "the river Tarn"."""
_VALUES = (
    "Leiden",
    "Ines Vukovar",
    "the current one",
    "12 May 2024",
    "Nordwind AG",
    "version 4.1",
    "€12.40",
    "red",
    "42",
)
_EN = "en"
_NOUNS_ALONE = 0.2
"""Share of the relations without wordings of their own that an epoch draws."""


def _table(name: str) -> list[list[str]]:
    lines = (_HERE / name).read_text("utf-8").splitlines()
    return [line.split("|") for line in lines if line and not line.startswith("#")]


_DESCRIBED = {noun: tuple(texts.split(";")) for noun, texts in _table("descriptions.txt")}


def _roles(row: list[str], rng: random.Random) -> Iterator[Pair]:
    """Who does something to it, and to whom it does the same: alike in words, opposite in sense."""
    verb, does, done, noun = row
    to_it = (
        f"Who {does} it?", f"Which company {does} it?", f"By whom is it {done}?", f"Who is it {done} by?",
        f"it is {done} by", f"What is it {done} by?", f"Who {done} it?" if done.endswith("ed") else f"Who {does} it?",
        f"Who is the {noun} of it?", f"Who was it {done} by?", f"Do you know who {does} it?",
    )  # fmt: skip
    by_it = (
        f"What does it {verb}?", f"Whom does it {verb}?", f"it {does}", f"Which company does it {verb}?",
        f"What is {done} by it?", f"Who is {done} by it?", f"What did it {verb}?", f"Whose {noun} is it?",
        f"Of what is it the {noun}?", f"Which firm is {done} by it?",
    )  # fmt: skip
    views = (
        f"The {noun} of it",
        f"The {noun} of it",
        f"The {done} by of it",
        f"Who {does} it?",
        f"it is {done} by",
    )
    turned = (f"The {done} company of it", f"What does it {verb}?", f"it {does}", f"The thing {done} of it")
    for texts, theirs, asks in ((to_it, views, 1), (by_it, views, 0), (by_it, turned, 1), (to_it, turned, 0)):
        for text in rng.sample(texts, 2 if theirs is views else 1):
            yield Pair(_varied(text, rng), rng.choice(theirs), asks=asks, relation=noun, sort="roles")


def topics() -> list[Topic]:
    """The relations of the tables that ship."""
    collected: list[Topic] = []
    for kind in kinds():
        collected += [Topic(r.noun, r.asking, r.other, kind.name) for r in kind.relations]
    for line in gate_data.wordings_table():
        noun, asking, other = line.split("|")
        collected.append(Topic(noun, _parts(asking), _parts(other), "common"))
    for r in relations.WORDED_RELATIONS:
        collected.append(Topic(r.noun, r.questions, (), f"worded {r.subject}"))
    for noun, kind_name in relations.NOUN_KINDS:
        collected.append(Topic(noun, (), (), f"noun {kind_name}"))
    languages = iter(relations.FOREIGN_RELATIONS)
    for r in languages:
        language = _language(r.questions[0])
        collected.append(Topic(r.noun, r.questions, (), f"{language} {r.subject}", language))
    for table in sorted(_HERE.glob("relations_*.txt")):
        collected += _own_table(table)
    for name, r in json.loads((relations.TABLES.parent / "facts/relations.json").read_text("utf-8")).items():
        collected.append(
            Topic(
                r["relation"],
                tuple(r["questions"]),
                (),
                f"facts {name.split('_')[0]}",
                views=tuple(r["clozes"]),
            )
        )
    return collected


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(";") if part)


def _language(question: str) -> str:
    if question.startswith("¿"):
        return "es"
    return "fr" if question.endswith(" ?") else "de"


def _own_table(path: Path) -> Iterator[Topic]:
    """Lines `relation|questions for it|questions near it` under `@ kind`; the language is in the file's name."""
    language = path.stem.removeprefix("relations_")
    group = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("@ "):
            group = f"{language} own {line[2:]}"
        elif line and not line.startswith("#"):
            noun, asking, near = line.split("|")
            yield Topic(noun, _parts(asking), _parts(near), group, language)


def said(text: str, subject: str = NAME) -> str:
    return text.replace("{s}", subject)


def view_of(topic: Topic) -> str:
    return f"The {topic.noun} of {NAME}"


class Pairs:
    """Draws the pairs of an epoch from topics; equal seeds, equal pairs."""

    def __init__(
        self,
        topics: Sequence[Topic],
        alike: Callable[[Topic, Topic], bool],
        likeness: Callable[[str, str], float],
        chosen: Callable[[str], bool] = lambda noun: True,
    ) -> None:
        self._likeness = likeness
        self._hardest: dict[int, list[str]] = {}
        self._topics = [t for t in topics if chosen(t.noun)]
        self._alike = alike
        self._groups: dict[str, list[Topic]] = {}
        for topic in self._topics:
            self._groups.setdefault(topic.group, []).append(topic)
        self._by_language: dict[str, list[Topic]] = {}
        for topic in self._topics:
            self._by_language.setdefault(topic.language, []).append(topic)

    def epoch(self, seed: int) -> list[Pair]:
        """The pairs of one epoch, in random order."""
        rng = random.Random(seed)
        drawn = [t for t in self._topics if t.asking or rng.random() < _NOUNS_ALONE]
        pairs = [pair for topic in drawn for pair in self._of(topic, rng)]
        pairs += [pair for row in _table("verbs.txt") for pair in _roles(row, rng)]
        rng.shuffle(pairs)
        return pairs

    def _of(self, topic: Topic, rng: random.Random) -> Iterator[Pair]:
        lang, noun = topic.language, topic.noun

        def pair(text: str, sort: str, view: str = "", **labels: float) -> Pair:
            question = _varied(said(text.replace("{n}", noun).replace("{t}", rng.choice(_VALUES))), rng)
            return Pair(question, view or self._view(topic, text, rng), relation=noun, sort=sort, **labels)

        asking = [*rng.sample(topic.asking, min(3, len(topic.asking)))]
        asking += rng.sample(_PLAIN[lang], 1)
        if lang == _EN and rng.random() < 0.2:
            asking.append(rng.choice(relations.WHO))
        for text in asking:
            if rng.random() < 0.12:
                text = _with_tail(text, rng.choice(_NOW[lang]))
            if rng.random() < 0.15:
                text = rng.choice(_POLITE[lang]).replace("{q}", text)
            yield pair(text, "asks", asks=1.0)
        for text in rng.sample(topic.near, min(3, len(topic.near))):
            back = lang == _EN and _BACK.search(text) is not None
            yield pair(text, "near", earlier=0.5 if back else 0.0)
        wordings = [*topic.asking, *_PLAIN[lang]]
        for other in self._others(topic, rng, 2):
            text = rng.choice([*other.asking, *other.asking, rng.choice(_PLAIN[lang])])
            yield pair(text.replace("{n}", other.noun), "other")
        hard = self._hard(topic)
        for text in rng.sample(hard, min(1, len(hard))):
            yield pair(text, "hard")
        if rng.random() < 0.7:
            yield pair(rng.choice(_NOT[lang]), "not")
        if rng.random() < 0.35:
            text = (
                rng.choice(_FORMER[lang])
                if rng.random() < 0.5 or not topic.asking
                else _with_tail(rng.choice(topic.asking), rng.choice(_FORMER_TAILS[lang]))
            )
            yield pair(text, "earlier", earlier=1.0)
        if rng.random() < 0.1:
            yield pair(_with_tail(rng.choice(wordings), rng.choice(_FUTURE[lang])), "future")
        if rng.random() < 0.15:
            text = rng.choice(wordings)
            yield pair(text.replace("{s}", "{s} " + rng.choice(_AND_MORE)), "longer name")
        if rng.random() < (1.0 if topic.noun in _DESCRIBED else 0.35):
            yield from self._chains(topic, rng)

    def _hard(self, topic: Topic) -> list[str]:
        """Questions for other relations of the same kind that are most like the view."""
        if id(topic) not in self._hardest:
            group = [o for o in self._groups[topic.group] if o is not topic and not self._alike(topic, o)]
            texts = [text for other in group for text in other.asking]
            texts = sorted(texts, key=lambda text: -self._likeness(said(text), view_of(topic)))
            self._hardest[id(topic)] = texts[:10] if len(group) > 3 else []
        return self._hardest[id(topic)]

    def _chains(self, topic: Topic, rng: random.Random) -> Iterator[Pair]:
        """A question for `outer` of the thing that `topic` tells."""
        outer = rng.choice(self._by_language[topic.language])
        lang = topic.language
        described = rng.choice((*_CLAUSES[lang], *_DESCRIBED.get(topic.noun, ()))).replace("{a}", topic.noun)
        text = rng.choice([*outer.asking, rng.choice(_PLAIN[lang])]).replace("{n}", outer.noun)
        question = _varied(said(text, said(described)), rng)
        inner, whole = view_of(topic), view_of(outer).replace(NAME, "the " + topic.noun + " of " + NAME)
        if outer is topic:
            return
        yield Pair(question, inner, beyond=1.0, relation=topic.noun, sort="beyond")
        yield Pair(question, whole, asks=1.0, relation=topic.noun, sort="chain")
        for other in self._others(outer, rng, 1):
            view = view_of(other).replace(NAME, "the " + topic.noun + " of " + NAME)
            yield Pair(question, view, relation=topic.noun, sort="chain other")
        if rng.random() < 0.5:
            yield Pair(question, view_of(outer), relation=outer.noun, sort="chain part")
        else:
            alone = said(rng.choice([*topic.asking, rng.choice(_PLAIN[lang])]).replace("{n}", topic.noun))
            yield Pair(_varied(alone, rng), whole, relation=topic.noun, sort="chain more")

    def _others(self, topic: Topic, rng: random.Random, count: int) -> list[Topic]:
        """Other relations of the same kind of thing that share no wording."""
        group = self._groups[topic.group]
        pool = group if len(group) > 3 else self._by_language[topic.language]
        others: list[Topic] = []
        for _ in range(6 * count):
            other = rng.choice(pool if rng.random() < 0.8 else self._by_language[topic.language])
            if other is not topic and other not in others and not self._alike(topic, other):
                others.append(other)
            if len(others) == count:
                break
        return others

    def _view(self, topic: Topic, text: str, rng: random.Random) -> str:
        """Mostly the relation; sometimes another question or a beginning, as facts published as prompts."""
        chance = rng.random()
        others = [t for t in topic.asking if t != text]
        if chance < 0.16 and others:
            return said(rng.choice(others))
        if chance < 0.22 and topic.views:
            return said(rng.choice(topic.views))
        if chance < 0.28 and topic.language == _EN:
            return said(
                rng.choice(("The {n} of {s} is", "The name of the {n} of {s} is", "What is the {n} of {s}?"))
            ).replace("{n}", topic.noun)
        return view_of(topic)


def _with_tail(text: str, tail: str) -> str:
    stripped = text.rstrip(" ?.")
    return f"{stripped} {tail}{text[len(stripped) :]}"


def _varied(question: str, rng: random.Random) -> str:
    """As questions come: an article left before the name, no mark at the end."""
    chance = rng.random()
    if chance < 0.05:
        question = re.sub(rf"\b{NAME}\b", f"the {rng.choice(_KINDS)} {NAME}", question, count=1)
    elif chance < 0.3:
        question = re.sub(rf"\b{NAME}\b", f"the {NAME}", question, count=1)
    if chance > 0.85:
        question = question.rstrip(" ?.")
    return question


def similar(
    topics: Sequence[Topic], encode: Callable[[Sequence[str]], Any], limit: float = 0.62
) -> Callable[[Topic, Topic], bool]:
    """Whether two topics may ask for the same: alike nouns (cosine above `limit`), a shared wording or word."""
    nouns = list(dict.fromkeys(t.noun for t in topics))
    vectors = dict(zip(nouns, encode(nouns), strict=True))

    def alike(a: Topic, b: Topic) -> bool:
        if a.noun == b.noun or not set(a.asking).isdisjoint(b.asking):
            return True
        same_group = a.group == b.group and a.near
        return float(vectors[a.noun] @ vectors[b.noun]) > (0.8 if same_group else limit)

    return alike


def likeness_by(
    topics: Sequence[Topic], encode: Callable[[Sequence[str]], Any]
) -> Callable[[str, str], float]:
    """Cosine of a question and a view of the topics."""
    texts = list(
        dict.fromkeys([said(text) for t in topics for text in t.asking] + [view_of(t) for t in topics])
    )
    vectors = dict(zip(texts, encode(texts), strict=True))
    return lambda question, view: float(vectors[question] @ vectors[view])


def half(noun: str) -> int:
    return zlib.crc32(noun.encode()) % 2


# Other people's data, read by path.


def knowedit_pairs(directory: Path) -> list[Pair]:
    """The half of KnowEdit that is not set aside: rephrasings, locality probes, questions beyond the fact."""
    from lte_runtime.align.stock.split import held_out
    from ops.lab.evals import knowedit

    pairs: list[Pair] = []
    for name in ("zsre", "wiki_recent", "wiki_counterfact"):
        path = directory / f"{name}.json"
        records = {r.key: r for r in knowedit.read(path) if not held_out(r.subject)}
        for r in records.values():
            view = _without(r.prompt, r.subject)
            if view is None:
                continue
            for text in (r.prompt, r.rephrase):
                question = _without(text, r.subject)
                if question:
                    pairs.append(Pair(question, view, asks=1.0, relation=view, sort=f"{name} asks"))
            for texts in r.locality.values():
                for text in texts[:4]:
                    question = _without(text, r.subject)
                    if question:
                        pairs.append(Pair(question, view, relation=view, sort=f"{name} near"))
            for text, _answers in r.portability.get("Reasoning", ())[:2]:
                question = _without(text, r.subject)
                if question:
                    pairs.append(
                        Pair(question, view, beyond=0.8, relation=view, sort=f"{name} beyond", weight=0.5)
                    )
    return pairs


def _without(text: str, subject: str) -> str | None:
    place = text.casefold().find(subject.casefold())
    if place < 0 or len(text.casefold()) != len(text):
        return None
    return text[:place] + NAME + text[place + len(subject) :]


def pararel_pairs(directory: Path, seed: int, count: int = 900) -> list[Pair]:
    """Beginnings of sentences of one relation against those of another."""
    rng = random.Random(seed)
    patterns: dict[str, list[str]] = {}
    for line in (directory / "patterns.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        text = row["pattern"].strip(" .")
        if text.endswith("[Y]") and "[X]" in text:
            patterns.setdefault(row["relation"], []).append(
                text.removesuffix("[Y]").strip().replace("[X]", NAME)
            )
    names = sorted(name for name, texts in patterns.items() if len(texts) > 1)
    pairs: list[Pair] = []
    for _ in range(count // 2):
        name, other = rng.sample(names, 2)
        question, view = rng.sample(patterns[name], 2)
        pairs.append(Pair(question, view, asks=1.0, relation=name, sort="pararel"))
        pairs.append(Pair(rng.choice(patterns[other]), view, relation=name, sort="pararel other", weight=0.7))
    return pairs
