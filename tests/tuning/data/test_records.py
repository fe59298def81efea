"""Files of records of every kind: JSON lines, CSV, TSV, CoNLL, ShareGPT; detected kinds; held-out records."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.tuning.data.records import KINDS, check_records, kind_of, read_records, split

TALK = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
RECORDS = {
    "instruction": {"instruction": "Add.", "input": "2 3", "output": "5"},
    "conversation": {"messages": TALK},
    "preference": {"prompt": "Late?", "chosen": "Yes.", "rejected": "No."},
    "feedback": {"prompt": "Late?", "answer": "Yes.", "label": True},
    "prompt": {"prompt": "2 + 3", "answer": "5", "rule": "numeric"},
    "classification": {"text": "a cat", "pair": "a dog", "label": "animal"},
    "answering": {"context": "a cat sat", "question": "Who?", "answers": ["cat"]},
    "tagging": {"tokens": ["Ada", "sleeps"], "tags": ["B-PER", "O"]},
}


def written(tmp_path, text, name="file.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def refused(path, kind, message):
    with pytest.raises(ValueError) as error:
        read_records(path, kind)
    assert message in str(error.value) and str(error.value).isprintable(), str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_detected_and_another_one_refused(kind, tmp_path):
    path = written(tmp_path, lines(RECORDS[kind]) * 2)
    found = read_records(path)
    assert found == read_records(path, kind) == read_records(path, list(KINDS)) == check_records(found, kind)
    assert kind_of(found[0]) == kind_of(RECORDS[kind]) == kind
    assert read_records(written(tmp_path, json.dumps([RECORDS[kind]] * 2), "file.json"), kind) == found
    for other in KINDS:
        if other != kind and not (other == "prompt" and "prompt" in RECORDS[kind]):
            refused(path, other, f"file.jsonl, line 1: expected a record of kind {other} (")
            refused(path, other, f'), got one of kind {kind} ("')
    refused(written(tmp_path, lines(RECORDS[kind], {"a": 1})), kind, "file.jsonl, line 2: expected ")


def test_of_several_kinds(tmp_path):
    path = written(tmp_path, lines(RECORDS["preference"]))
    instruction = 'expected a record of kind instruction ("instruction" or "prompt", "output" or "completion")'
    expected = f'{instruction} or conversation ("messages" or "conversations"), got'
    refused(path, ("instruction", "conversation"), f"line 1: {expected} one of kind preference (")
    refused(written(tmp_path, '{"foo": 1, "bar": 2}\n'), ("instruction", "conversation"), f"line 1: {expected} 'foo', 'bar'")
    refused(written(tmp_path, '{"foo": 1}\n'), None, "or prompt (\"prompt\"), got 'foo'")
    path = written(tmp_path, lines(RECORDS["instruction"], RECORDS["conversation"]))  # one kind a file
    refused(
        path,
        ("instruction", "conversation"),
        'line 2: expected a record of kind instruction ("instruction" or "prompt", "output" or "completion"), got',
    )
    refused(written(tmp_path, "\n"), None, "file.jsonl: expected one record per line, got no records")
    refused(written(tmp_path, '{"a": 1}', "x.json"), None, "x.json: expected a list of records (JSON lines have the suffix")
    refused(written(tmp_path, '[{"prompt": "a"}, {"prompt": 1}]', "x.json"), None, "x.json, record 1: expected a text 'prompt'")


def test_a_prompt_with_its_completion_is_an_instruction(tmp_path):
    found = read_records(written(tmp_path, '{"prompt": "Add.", "completion": "5", "id": 3}\n'))
    assert found == [{"instruction": "Add.", "output": "5", "id": 3, "input": ""}]


def test_long_texts_in_tables(tmp_path):
    """Beyond 131,072 characters, the default limit of Python's csv."""
    path = written(tmp_path, f"instruction,output\na,{'b' * 140_000}\n", "a.csv")
    assert len(read_records(path)[0]["output"]) == 140_000


def test_tables(tmp_path):
    text = '\ufeffprompt,chosen,rejected\r\n"Is it ""late""?\nReally?",Yes.,"No, no."\r\n\r\nb,c,d\r\n'
    first = {"prompt": 'Is it "late"?\nReally?', "chosen": "Yes.", "rejected": "No, no."}
    for kind in (None, "preference"):
        assert read_records(written(tmp_path, text, "a.csv"), kind) == [first, {"prompt": "b", "chosen": "c", "rejected": "d"}]
    text = "context\tquestion\tanswer\tid\na cat sat\tWho?\tcat\t7\na dog\tWhen?\t\t8\n"
    found = read_records(written(tmp_path, text, "a.tsv"))
    assert [(r["answers"], r["spans"], r["id"]) for r in found] == [(["cat"], [[2, 5]], "7"), ([], [], "8")]
    for labels, expected in (
        (["0", "1"], [0, 1]),
        (["0.5", "1"], [0.5, 1.0]),
        (["0", "x"], ["0", "x"]),
        (["1", "nan"], ["1", "nan"]),
    ):
        table = "sentence1,sentence2,label\n" + "".join(f"a,b,{label}\n" for label in labels)
        found = read_records(written(tmp_path, table, "a.csv"), "classification")
        assert found == [{"text": "a", "pair": "b", "label": label} for label in expected]
    found = read_records(written(tmp_path, "prompt,answer,label\na,b,true\na,c,False\n", "a.csv"))
    assert [record["label"] for record in found] == [True, False]
    assert all(type(record["label"]) is bool for record in found)  # not 1 and 0, which feedback() refuses


@pytest.mark.parametrize(("text", "message"), [
    ("text,label\na,b\n\na,b,c\n", "a.csv, line 4: expected 2 texts, as in the header, got 3: ['a', 'b', 'c']"),
    ('text,label\n"a\nb",c\n"a,b\nc,d\n', "a.csv, line 4: expected a row of a table, got an error (unexpected end of data)"),
    ('text,label\n"a"b,c\n', "a.csv, line 2: expected a row of a table, got an error ('"),
    (b"text,label\na,b\n\xff,b\n", "a.csv, line 3: expected valid UTF-8, got "),
    ("text,text\n", "a.csv, line 1: expected a header row of different names, got ['text', 'text']"),
    ("text,\n", "a.csv, line 1: expected a header row of different names"),
    ("great,1\n", 'a.csv, line 1, the header row: expected a record of kind classification ("text" or '),
    ("text,label\na, \n", "a.csv, line 2: label: expected a name, a number, or a list of names or numbers of classes, got ' '"),
    ("text,label\n", "a.csv: expected one classification per line, got no records"),
    ("", "a.csv: expected one classification per line, got no records"),
])  # fmt: skip
def test_bad_tables(text, message, tmp_path):
    refused(written(tmp_path, text, "a.csv"), "classification", message)
    refused(written(tmp_path, text, "a.csv"), "conversation", "a.csv: expected JSON lines, since a table has texts only")


def test_words_and_tags(tmp_path):
    tabs = "EU\tB-ORG\nrejects\tO\n\n\nGerman\tB-MISC\r\n"
    expected = [{"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}, {"tokens": ["German"], "tags": ["B-MISC"]}]
    assert read_records(written(tmp_path, tabs, "a.tsv"), "tagging") == expected
    text = f"-DOCSTART- O\n\n{tabs}".replace("\t", " ")
    assert read_records(written(tmp_path, text, "a.conll")) == read_records(tmp_path / "a.conll", "tagging") == expected
    refused(written(tmp_path, tabs + "x\n", "a.tsv"), "tagging", "a.tsv, line 6: expected a word and its tag, separated by a tab")
    refused(written(tmp_path, "a b c\n", "a.conll"), "tagging", "a.conll, line 1: expected a word and its tag, separated by a")
    refused(tmp_path / "a.conll", "prompt", "a.conll: expected records of kind prompt, got a .conll")


def test_sharegpt(tmp_path):
    call, schema = {"name": "add", "arguments": {"a": 2}}, {"name": "add", "parameters": {}}
    turns = [("human", "2?"), ("function_call", json.dumps(call)), ("observation", "4"), ("gpt", "It is 4."), ("user", "3?"),
             ("function_call", json.dumps([call, call])), ("tool", "6"), ("tool", "6"), ("assistant", "6")]  # fmt: skip
    record = {"conversations": [{"from": who, "value": said} for who, said in turns], "system": "Be kind.",
              "tools": json.dumps([schema]), "id": 3}  # fmt: skip
    (found,) = read_records(written(tmp_path, lines(record)))
    assert found.keys() == {"messages", "system", "tools", "id"} and found["tools"] == [schema]
    roles = ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool", "tool", "assistant"]
    assert [m["role"] for m in found["messages"]] == roles and check_records([found]) == [found]
    calls = [m["tool_calls"] for m in found["messages"] if "tool_calls" in m]
    assert calls == [[{"type": "function", "function": call}], [{"type": "function", "function": call}] * 2]


@pytest.mark.parametrize(("record", "message"), [
    ({"conversations": "a"}, "expected a list of turns, got 'a'"),
    ({"conversations": [{"from": "human"}]}, 'turn 0: expected an object with "from" and a text "value"'),
    ({"conversations": [{"from": "bing", "value": "x"}]}, 'turn 0: expected "from" one of human, user, gpt, '),
    ({"conversations": [{"from": ["human"], "value": "x"}]}, 'turn 0: expected "from" one of human, user, gpt, '),
    ({"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "add(2)"}]},
     'turn 1: expected the JSON of {"name": ..., "arguments": ...}, or of a list of such, got \'add(2)\''),
    ({"conversations": [{"from": "gpt", "value": "x"}]}, "messages: expected an optional system message, then user"),
    ({"messages": TALK, "tools": "{"}, "tools: expected the JSON of a list of schemas, got '{'"),
    ({"messages": TALK, "tools": [5]}, "tools: number 0: expected "),
    ({"prompt": "a", "rule": 5}, "expected a text 'rule', got 5"),
    ({"tokens": ["a"], "tags": ["x", "y"]}, "expected a tag for each of 1 tokens, got 2"),
    ({"tokens": ["a", " "], "tags": ["x", "y"]}, "tokens: expected words that are not empty"),
    ({"tokens": ["a"], "tags": [0.5]}, "tags: expected names or numbers, got [0.5]"),
    ({"tokens": [], "tags": []}, "expected a list 'tokens', got []"),
    ({"context": "a cat", "question": "b", "answers": "dog"}, "answers: expected a text in the context, got 'dog'"),
    ({"context": "a cat", "question": "b", "answers": {"text": ["cat"], "answer_start": [1]}},
     "answers: expected one at character 1, got 'cat'"),
    ({"context": "a cat", "question": "b", "answers": {"text": ["cat"], "answer_start": 2}}, "answer_start: expected 1 integers"),
    ({"context": "a cat", "question": "b", "answers": [5]}, "answers: expected a text or a list of texts, got [5]"),
    ({"text": "a", "label": True}, "label: expected a name, a number, or a list"),
    ({"text": "a", "label": [0.5]}, "label: expected a name, a number, or a list"),
    ({"text": "a", "pair": "", "label": 1}, "pair: expected a text, got an empty one"),
    ({"premise": "a", "hypothesis": 3, "label": 1}, "expected a text 'pair', got 3"),
])  # fmt: skip
def test_bad_records(record, message, tmp_path):
    refused(written(tmp_path, lines(record)), None, "file.jsonl, line 1")
    refused(tmp_path / "file.jsonl", None, message)


def test_nulls_of_a_table_of_messages():
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    rows = [("user", "2?", None), ("assistant", None, [call]), ("tool", "4", None), ("assistant", "4", None)]
    messages = [{"role": role, "content": content, "tool_calls": calls, "name": None} for role, content, calls in rows]
    (found,) = check_records([{"messages": messages}])
    assert [list(message) for message in found["messages"]] == [["role", "content"], ["role", "content", "tool_calls"],
                                                               ["role", "content"], ["role", "content"]]  # fmt: skip


def test_squad():
    answers = {"text": ["cat", "a"], "answer_start": [2, 0]}
    (found,) = check_records([{"context": "a cat", "question": "Who?", "answers": answers}])
    assert found["answers"] == ["cat", "a"] and found["spans"] == [[2, 5], [0, 1]]


@pytest.mark.parametrize("kind", ["conversation", "classification"])
def test_a_bad_line_of_ten_thousand_is_named_at_once(kind, tmp_path):
    path = written(tmp_path, lines(RECORDS[kind]) * 9_999 + '{"prompt": 5}\n')
    begin = time.process_time()
    refused(path, kind, "file.jsonl, line 10000: expected a record of kind")
    assert time.process_time() - begin < 2


# ------------------------------------------------------------------------------------------------------- held out


@given(st.lists(st.integers(0, 12), min_size=2, max_size=40), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_keeps_prompts_together(numbers, share, seed):
    records = [{"prompt": f"{n} + 3", "answer": i} for i, n in enumerate(numbers)]
    if len(set(numbers)) == 1:
        with pytest.raises(ValueError, match="records: expected two or more different prompts, to hold one out, got 1"):
            split(records, share, seed)
        return
    training, held_out = split(records, share, seed)
    sides = [{record["prompt"] for record in side} for side in (training, held_out)]
    assert all(sides) and not sides[0] & sides[1]
    assert sorted([*training, *held_out], key=lambda r: r["answer"]) == records
    assert all([r["answer"] for r in side] == sorted(r["answer"] for r in side) for side in (training, held_out))
    largest = max(map(numbers.count, numbers))
    assert len(held_out) <= share * len(records) + largest
    turned = split(records[::-1], share, seed)
    assert [side[::-1] for side in turned] == [training, held_out]  # the order of the file does not matter


@pytest.mark.parametrize("kind", RECORDS)
def test_what_is_a_prompt(kind):
    """Of two records with the same prompt and other answers, both are held out or none."""
    other = {"instruction": {"output": "6"}, "conversation": {"messages": [TALK[0], TALK[1] | {"content": "6"}]},
             "preference": {"chosen": "Maybe."},
             "feedback": {"label": False}, "prompt": {"answer": "6"}, "classification": {"label": "x"},
             "answering": {"question": "Where?"}, "tagging": {"tags": ["O", "O"]}}[kind]  # fmt: skip
    field = {"instruction": "input", "classification": "pair", "answering": "context"}
    many = []
    for n in range(20):
        record = json.loads(json.dumps(RECORDS[kind]))
        if kind == "conversation":
            record["messages"][0]["content"] = str(n)
        elif kind == "tagging":
            record["tokens"][0] = str(n)
        else:
            record[field.get(kind, "prompt")] = f"{n} cat"
        twin = json.loads(json.dumps(other))
        if kind == "conversation":
            twin["messages"][0]["content"] = str(n)
        many += [record, record | twin]
    training, held_out = split(many, 0.2)
    assert len(held_out) == 8 and split(many, 0) == (many, [])
    assert {json.dumps(r) for r in held_out} != {json.dumps(r) for r in split(many, 0.2, seed=1)[1]}
    places = [many.index(record) for record in held_out]
    assert [n + 1 for n in places[::2]] == places[1::2] and all(n % 2 == 0 for n in places[::2])
