"""The kinds of records: what each needs, its check, and the kind that a record looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ....arguments import is_number, is_whole, mismatch, shown, wrong
from .talks import answer_of, conversation_of, messages_of, with_tools

Record = dict[str, Any]
Check = Callable[[Mapping[str, Any], str], Record]

# the fields of a pair of texts, and what they are called here
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"))


def _text(record: Mapping[str, Any], name: str, where: str, *, default: str | None = None) -> str:
    """A non-empty text, or `default` if the name is missing."""
    value = record.get(name, default)
    if not isinstance(value, str):
        got = shown(value, 60) if name in record else _keys(record)
        raise ValueError(f"{where}: expected a text {name!r}, got {got}")
    if default is None and not value.strip():
        raise ValueError(f"{where}: {name}: expected a text, got an empty one")
    return value


def _keys(record: Mapping[str, Any]) -> str:
    return f"only {', '.join(map(repr, record)) or 'an empty object'}"


def _instruction(record: Mapping[str, Any], where: str) -> Record:
    """ "prompt" and "completion" are other names of "instruction" and "output"."""
    for name, other in (("instruction", "prompt"), ("output", "completion")):
        if name not in record and other in record:
            record = {(name if key == other else key): value for key, value in record.items()}
    return {
        **record,
        "instruction": _text(record, "instruction", where),
        "input": _text(record, "input", where, default=""),
        "output": _text(record, "output", where),
    }


def _asked(record: Mapping[str, Any], where: str) -> Record:
    """A prompt, with the schemas of its tools."""
    if isinstance(record.get("prompt"), list):
        messages = messages_of(record["prompt"], where, answered=False)
        return {"prompt": messages, **with_tools(record, where)}
    return {"prompt": _text(record, "prompt", where)}


def _prompt(record: Mapping[str, Any], where: str) -> Record:
    for name in ("rule", "pattern"):
        if name in record:
            _text(record, name, where)
    return {**record, **_asked(record, where)}


def _preference(record: Mapping[str, Any], where: str) -> Record:
    sides, prompts = {}, []
    for name in ("chosen", "rejected"):
        value = record.get(name)
        if isinstance(value, list):
            read = partial(messages_of, answered=True) if len(value) > 1 else answer_of
            said = read(value, f"{where}, {name}")
            if said[-1]["role"] != "assistant" or not said[-1].get("content"):
                expected = "the assistant's answer at the end"
                raise mismatch(f"{where}: {name}", expected, "another message")
            sides[name] = said[-1]["content"]
            if len(said) > 1:
                prompts.append(said[:-1])
        else:
            sides[name] = _text(record, name, where)
    asked = _asked(record, where) if "prompt" in record else with_tools(record, where)
    if "prompt" in record:
        prompts.insert(0, asked["prompt"])
    if not prompts:
        raise mismatch(where, '"prompt", or conversations as chosen and rejected', "neither")
    if any(prompt != prompts[0] for prompt in prompts[1:]):
        raise mismatch(where, "equal prompts", f"{prompts[0]!r:.80} and {prompts[-1]!r:.80}")
    if "prompt" not in record and len(prompts) < 2:
        raise mismatch(where, "a prompt in both conversations", "one in only one of them")
    if sides["chosen"] == sides["rejected"]:
        raise mismatch(where, "different answers", "the same as chosen and rejected")
    return {**record, **asked, "prompt": prompts[0], **sides}


def _feedback(record: Mapping[str, Any], where: str) -> Record:
    """ "completion" is another name of "answer"."""
    names = [name for name in ("answer", "completion") if name in record]
    if len(names) != 1:
        raise mismatch(where, "'answer' or 'completion'", "both" if names else _keys(record))
    made = {**_prompt(record, where), "answer": record[names[0]]}
    made.pop("completion", None)
    if isinstance(made["answer"], list):
        made["answer"] = answer_of(made["answer"], f"{where}, {names[0]}")[0]["content"]
    made["answer"] = _text(made, "answer", where)
    label = {"true": True, "false": False}.get(str(made.get("label")).lower())  # a table has texts
    if label is None:
        given = shown(made["label"], 60) if "label" in made else "no 'label'"
        raise mismatch(where, "true or false as 'label'", given)
    return {**made, "label": label}


def _classification(record: Mapping[str, Any], where: str) -> Record:
    made = dict(record)
    for first, second in PAIRS:
        if "text" not in made and first in made:
            made = {"text": made.pop(first), "pair": made.pop(second, None), **made}
    made["text"] = _text(made, "text", where)
    if made.get("pair") is None:
        made.pop("pair", None)
    else:
        made["pair"] = _text(made, "pair", where)
    if "label" not in made:
        raise ValueError(f"{where}: expected a 'label', got {_keys(record)}")
    label = made["label"]
    several = isinstance(label, list)
    good = all(map(_is_label, label)) if several else _is_label(label) or is_number(label)
    if not good:
        expected = "a name, a number, or a list of names or numbers of classes"
        raise mismatch(f"{where}: label", expected, shown(label, 60))
    return made


def _is_label(value: Any) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or is_whole(value)


def _answering(record: Mapping[str, Any], where: str) -> Record:
    """ "answers": the texts, "spans": where they are in the context."""
    context, question = (_text(record, name, where) for name in ("context", "question"))
    given = record.get("answers", record.get("answer"))
    if "answers" not in record and "answer" not in record:
        raise ValueError(f"{where}: expected 'answers', got {_keys(record)}")
    starts: Any = None
    if isinstance(given, Mapping):  # SQuAD's
        starts, given = given.get("answer_start"), given.get("text")
    texts = [given] if isinstance(given, str) and given else [] if not given else given
    if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
        raise mismatch(f"{where}: answers", "a text or a list of texts", shown(given, 60))
    starts = [context.find(text) for text in texts] if starts is None else starts
    if not isinstance(starts, list) or len(starts) != len(texts) or not all(map(is_whole, starts)):
        expected = f"{len(texts)} integers, where the answers begin"
        raise mismatch(f"{where}: answer_start", expected, shown(starts, 60))
    for text, start in zip(texts, starts):
        if start < 0 or not context.startswith(text, start):
            expected = "a text in the context" if start < 0 else f"one at character {start}"
            raise mismatch(f"{where}: answers", expected, shown(text, 60))
    spans = [[start, start + len(text)] for text, start in zip(texts, starts)]
    return {**record, "context": context, "question": question, "answers": texts, "spans": spans}


def _tagging(record: Mapping[str, Any], where: str) -> Record:
    for name in ("tokens", "tags"):
        if not isinstance(record.get(name), list) or not record[name]:
            got = shown(record[name], 60) if name in record else _keys(record)
            raise ValueError(f"{where}: expected a list {name!r}, got {got}")
    tokens, tags = record["tokens"], record["tags"]
    if not all(isinstance(token, str) and token.strip() for token in tokens):
        raise mismatch(f"{where}: tokens", "words that are not empty", shown(tokens, 60))
    if not all(map(_is_label, tags)):
        raise mismatch(f"{where}: tags", "names or numbers", shown(tags, 60))
    if len(tokens) != len(tags):
        raise mismatch(where, f"a tag for each of {len(tokens)} tokens", len(tags))
    return dict(record)


# {kind: (the fields by which it is known, each one name or several to choose from; its check)},
# the kinds with the most of its own fields first
KINDS: dict[str, tuple[tuple[tuple[str, ...], ...], Check]] = {
    "preference": ((("chosen",), ("rejected",)), _preference),
    "feedback": ((("prompt",), ("answer", "completion"), ("label",)), _feedback),
    "instruction": ((("instruction", "prompt"), ("output", "completion")), _instruction),
    "conversation": ((("messages", "conversations"),), conversation_of),
    "tagging": ((("tokens",), ("tags",)), _tagging),
    "answering": ((("context",), ("question",), ("answers", "answer")), _answering),
    "classification": ((("text", *(pair[0] for pair in PAIRS)), ("label",)), _classification),
    "prompt": ((("prompt",),), _prompt),
}


def kind_of(record: Mapping[str, Any]) -> str | None:
    """The kind whose fields a record has, the most specific one; None if it has those of none."""
    if not isinstance(record, Mapping):
        raise wrong("record", "a dict", record)
    return next((kind for kind in KINDS if has_fields(record, kind)), None)


def has_fields(record: Mapping[str, Any], kind: str) -> bool:
    """Whether the record has the fields by which a kind is known."""
    return all(any(name in record for name in names) for names in KINDS[kind][0])


def needs(kind: str) -> str:
    """The kind with its fields, for a message: instruction ("instruction", "output")."""
    fields = (" or ".join(f'"{name}"' for name in names) for names in KINDS[kind][0])
    return f"{kind} ({', '.join(fields)})"


def check_record(record: Any, kind: str, where: str) -> Record:
    """The record in its kind's form; ValueError naming what it looks like, or what it lacks."""
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected an object, got {shown(record, 60)}")
    if not has_fields(record, kind) and (other := kind_of(record)):
        raise mismatch(where, f"a record of kind {needs(kind)}", f"one of kind {needs(other)}")
    return KINDS[kind][1](record, where)
