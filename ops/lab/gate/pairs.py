"""Pairs of a question and a view for training the relevance model, with what the question asks of the view.

Names are taken out of both. A pair has three labels: `asks` (the view's current value), `earlier` (a value
that it had before), `beyond` (something else of the thing that the view describes: "the currency of the home
country of it" beside "The home country of it"). Negatives are questions that are easily confused: about
another relation of the same kind of thing, near questions written by hand, negated or reversed ones, names
that go on behind the place of the name.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lte_runtime.align.stock import relations
from lte_runtime.templates import templates
from ops.lab.gate import gate_data
from ops.lab.gate.topics import FOLDER, Encode, Topic, table

NAME = templates().view.mention
"""Stands where the subject's name was."""
_BACK = re.compile(
    r"\b(former|formerly|previous|previously|before|earlier|used to|old|originally)\b", re.IGNORECASE
)
_EN = "en"
_NOUNS_ALONE = 0.2
"""Share of the relations without wordings of their own that an epoch draws."""
_HARDEST = 10
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
_KINDS = (
    "company firm shop town village river bridge ship ferry train film book novel album band choir club team "
    "museum school course project server program product machine wine cheese festival race prize law treaty "
    "case patient"
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
)
_VIEWS = ("The {n} of {s} is", "The name of the {n} of {s} is", "What is the {n} of {s}?")
_DESCRIBED = {noun: tuple(texts.split(";")) for noun, texts in table("descriptions.txt")}


@dataclass(frozen=True, slots=True)
class Pair:
    """`relation` names what the view tells, for splits by relation; `sort` says how the pair was made."""

    question: str
    view: str
    asks: float = 0.0
    earlier: float = 0.0
    beyond: float = 0.0
    relation: str = ""
    sort: str = ""
    weight: float = 1.0


def view_of(noun: str, subject: str = NAME) -> str:
    """The view of a relation, as the memory has it."""
    return templates().view.relation.format(relation=noun, subject=subject)


def _frames() -> dict[str, dict[str, tuple[str, ...]]]:
    """Frames of questions by language and use."""
    raw = tomllib.loads((FOLDER / "frames.toml").read_text("utf-8"))
    frames = {lang: {use: tuple(texts) for use, texts in uses.items()} for lang, uses in raw.items()}
    english = frames[_EN]
    english["plain"] += tuple(dict.fromkeys((*gate_data.PLAIN, *relations.QUESTIONS)))
    english["other_matter"] += tuple(t for t in gate_data.REVERSED if not _BACK.search(t)) + gate_data.ABOUT
    return frames


_FRAMES = _frames()
_MEASURES = tomllib.loads((FOLDER / "measures.toml").read_text("utf-8"))


def measures(noun: str, language: str, use: str) -> list[str]:
    """Frames for the value of a relation whose noun ends so, or (`use` "not") for something else of it."""
    sections = _MEASURES.get(language, ())
    return [text for part in sections if noun.casefold().endswith(tuple(part["ends"])) for text in part[use]]


class Pairs:
    """Draws the pairs of an epoch from topics; equal seeds, equal pairs.

    `alike` tells whether two topics may ask for the same, `likeness` how near a question is to a view; only
    topics whose noun is `chosen` are drawn.
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        alike: Callable[[Topic, Topic], bool],
        likeness: Callable[[str, str], float],
        chosen: Callable[[str], bool],
    ) -> None:
        self._alike, self._likeness = alike, likeness
        self._topics = [topic for topic in topics if chosen(topic.noun)]
        self._hardest: dict[int, list[str]] = {}
        self._groups: dict[str, list[Topic]] = defaultdict(list)
        self._by_language: dict[str, list[Topic]] = defaultdict(list)
        for topic in self._topics:
            self._groups[topic.group].append(topic)
            self._by_language[topic.language].append(topic)

    def epoch(self, seed: int) -> list[Pair]:
        """The pairs of one epoch, in random order."""
        draw = random.Random(seed)
        topics = [topic for topic in self._topics if topic.asking or draw.random() < _NOUNS_ALONE]
        pairs = [pair for topic in topics for pair in self._of(topic, draw)]
        pairs += [pair for row in table("verbs.txt") for pair in _roles(row, draw)]
        draw.shuffle(pairs)
        return pairs

    def _of(self, topic: Topic, draw: random.Random) -> Iterator[Pair]:
        for text in self._asking(topic, draw):
            yield self._pair(topic, text, "asks", draw, asks=1.0)
        for text in draw.sample(topic.near, min(3, len(topic.near))):
            back = topic.language == _EN and _BACK.search(text) is not None
            yield self._pair(topic, text, "near", draw, earlier=0.5 * back)
        yield from (self._pair(topic, text, sort, draw) for text, sort in self._elsewhere(topic, draw))
        if draw.random() < 0.35:
            yield self._pair(topic, _former(topic, draw), "earlier", draw, earlier=1.0)
        if draw.random() < (1.0 if topic.noun in _DESCRIBED else 0.35):
            yield from self._chains(topic, draw)

    def _pair(self, topic: Topic, text: str, sort: str, draw: random.Random, **labels: float) -> Pair:
        filled = text.replace("{n}", topic.noun).replace("{t}", draw.choice(_VALUES)).replace("{s}", NAME)
        view = _view(topic, text, draw)
        return Pair(_varied(filled, draw), view, relation=topic.noun, sort=sort, **labels)

    def _asking(self, topic: Topic, draw: random.Random) -> Iterator[str]:
        """Questions for the topic, some with a word for now or some courtesy around them."""
        frames = _FRAMES[topic.language]
        texts = [*draw.sample(topic.asking, min(3, len(topic.asking))), draw.choice(frames["plain"])]
        if topic.language == _EN and draw.random() < 0.2:
            texts.append(draw.choice(relations.WHO))
        texts.append(draw.choice(measures(topic.noun, topic.language, "asks")))
        for text in texts:
            timed = _with_tail(text, draw.choice(frames["now"])) if draw.random() < 0.12 else text
            courtly = draw.random() < 0.15
            yield draw.choice(frames["polite"]).replace("{q}", timed) if courtly else timed

    def _elsewhere(self, topic: Topic, draw: random.Random) -> Iterator[tuple[str, str]]:
        """Questions that do not ask for the topic, with the way they were made."""
        frames = _FRAMES[topic.language]
        for other in self._others(topic, draw, 2):
            text = draw.choice([*other.asking, *other.asking, draw.choice(frames["plain"])])
            yield text.replace("{n}", other.noun), "other"
        hard = self._hard(topic)
        yield from ((text, "hard") for text in draw.sample(hard, min(1, len(hard))))
        if draw.random() < 0.7:
            yield draw.choice(frames["other_matter"]), "not"
        if draw.random() < 0.6:
            yield draw.choice(measures(topic.noun, topic.language, "not")), "not"
        if draw.random() < 0.4:
            yield draw.choice(frames["former_matter"]), "former matter"
        if hard and draw.random() < 0.2:
            yield _with_tail(draw.choice(hard), draw.choice(frames["former_tails"])), "former other"
        wordings = (*topic.asking, *frames["plain"])
        if draw.random() < 0.15:
            yield draw.choice(wordings).replace("{s}", draw.choice(frames["related"])), "related"
        if draw.random() < 0.1:
            yield _with_tail(draw.choice(wordings), draw.choice(frames["future"])), "future"
        if draw.random() < 0.15:
            longer = draw.choice(wordings).replace("{s}", "{s} " + draw.choice(_AND_MORE))
            yield longer, "longer name"

    def _hard(self, topic: Topic) -> list[str]:
        """Questions for other relations of the same kind that are most like the view."""
        if id(topic) not in self._hardest:
            group = [o for o in self._groups[topic.group] if o is not topic and not self._alike(topic, o)]
            texts = [text for other in group for text in other.asking]
            view = view_of(topic.noun)
            texts.sort(key=lambda text: -self._likeness(text.replace("{s}", NAME), view))
            self._hardest[id(topic)] = texts[:_HARDEST] if len(group) > 3 else []
        return self._hardest[id(topic)]

    def _chains(self, topic: Topic, draw: random.Random) -> Iterator[Pair]:
        """A question for `outer` of the thing that `topic` tells, beside the whole view and its parts."""
        frames, outer = _FRAMES[topic.language], draw.choice(self._by_language[topic.language])
        if outer is topic:
            return
        described = draw.choice((*frames["described"], *_DESCRIBED.get(topic.noun, ())))
        described = described.replace("{a}", topic.noun)
        text = draw.choice([*outer.asking, draw.choice(frames["plain"])]).replace("{n}", outer.noun)
        if draw.random() < 0.2:
            related = described.replace("{s}", draw.choice(frames["related"]))
            asked = _varied(text.replace("{s}", related).replace("{s}", NAME), draw)
            yield Pair(asked, view_of(topic.noun), relation=topic.noun, sort="related")
        question = _varied(text.replace("{s}", described).replace("{s}", NAME), draw)
        inner = templates().view.inside.format(relation=topic.noun, subject=NAME)
        whole = view_of(outer.noun, inner)
        yield Pair(question, view_of(topic.noun), beyond=1.0, relation=topic.noun, sort="beyond")
        yield Pair(question, whole, asks=1.0, relation=topic.noun, sort="chain")
        for other in self._others(outer, draw, 1):
            yield Pair(question, view_of(other.noun, inner), relation=topic.noun, sort="chain other")
        if draw.random() < 0.5:
            yield Pair(question, view_of(outer.noun), relation=outer.noun, sort="chain part")
        else:
            alone = draw.choice([*topic.asking, draw.choice(frames["plain"])])
            alone = alone.replace("{n}", topic.noun).replace("{s}", NAME)
            yield Pair(_varied(alone, draw), whole, relation=topic.noun, sort="chain more")

    def _others(self, topic: Topic, draw: random.Random, count: int) -> list[Topic]:
        """Other relations, mostly of the same kind of thing, that share no wording."""
        group, everything = self._groups[topic.group], self._by_language[topic.language]
        pool = group if len(group) > 3 else everything
        others: list[Topic] = []
        for _ in range(6 * count):
            other = draw.choice(pool if draw.random() < 0.8 else everything)
            if other is not topic and other not in others and not self._alike(topic, other):
                others.append(other)
            if len(others) == count:
                break
        return others


def _view(topic: Topic, text: str, draw: random.Random) -> str:
    """Mostly the relation; sometimes another question or a beginning, as facts published as prompts."""
    chance = draw.random()
    others = [t for t in topic.asking if t != text]
    if chance < 0.16 and others:
        return draw.choice(others).replace("{s}", NAME)
    if chance < 0.22 and topic.clozes:
        return draw.choice(topic.clozes).replace("{s}", NAME)
    if chance < 0.28 and topic.language == _EN:
        return draw.choice(_VIEWS).replace("{s}", NAME).replace("{n}", topic.noun)
    return view_of(topic.noun)


def _former(topic: Topic, draw: random.Random) -> str:
    """A question for an earlier value: by a frame, or by words behind a question for the current one."""
    frames = _FRAMES[topic.language]
    if draw.random() < 0.5 or not topic.asking:
        return draw.choice(frames["former"])
    return _with_tail(draw.choice(topic.asking), draw.choice(frames["former_tails"]))


def _with_tail(text: str, tail: str) -> str:
    stripped = text.rstrip(" ?.")
    return f"{stripped} {tail}{text[len(stripped) :]}"


def _varied(question: str, draw: random.Random) -> str:
    """As questions come: an article or a kind of thing left before the name, no mark at the end."""
    chance = draw.random()
    if chance < 0.05:
        question = re.sub(rf"\b{NAME}\b", f"the {draw.choice(_KINDS)} {NAME}", question, count=1)
    elif chance < 0.3:
        question = re.sub(rf"\b{NAME}\b", f"the {NAME}", question, count=1)
    return question.rstrip(" ?.") if chance > 0.85 else question


def _roles(row: list[str], draw: random.Random) -> Iterator[Pair]:
    """Who does something to it, and to whom it does the same: alike in words, opposite in sense."""
    verb, does, done, noun = row
    to_it = (
        f"Who {does} it?", f"Which company {does} it?", f"By whom is it {done}?", f"Who is it {done} by?",
        f"it is {done} by", f"What is it {done} by?", f"Who is said to {verb} it?",
        f"Who is the {noun} of it?", f"Who was it {done} by?", f"Do you know who {does} it?",
    )  # fmt: skip
    by_it = (
        f"What does it {verb}?", f"Whom does it {verb}?", f"it {does}", f"Which company does it {verb}?",
        f"What is {done} by it?", f"Who is {done} by it?", f"What did it {verb}?", f"Whose {noun} is it?",
        f"Of what is it the {noun}?", f"Which firm is {done} by it?",
    )  # fmt: skip
    views = (view_of(noun), view_of(noun), view_of(f"{done} by"), f"Who {does} it?", f"it is {done} by")
    turned = (view_of(f"{done} company"), f"What does it {verb}?", f"it {does}", f"The thing {done} of it")
    for texts, theirs, asks in ((to_it, views, 1), (by_it, views, 0), (by_it, turned, 1), (to_it, turned, 0)):
        for text in draw.sample(texts, 2 if theirs is views else 1):
            yield Pair(_varied(text, draw), draw.choice(theirs), asks=asks, relation=noun, sort="roles")


def likeness_by(topics: Sequence[Topic], encode: Encode) -> Callable[[str, str], float]:
    """Cosine of a question and a view of the topics."""
    questions = (text.replace("{s}", NAME) for topic in topics for text in topic.asking)
    texts = list(dict.fromkeys([*questions, *(view_of(topic.noun) for topic in topics)]))
    vectors = dict(zip(texts, encode(texts), strict=True))
    return lambda question, view: float(vectors[question] @ vectors[view])
