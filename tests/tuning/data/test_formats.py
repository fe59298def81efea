"""Records, conversations with masks, preferences, instructions, packing, few-shot prompts, clozes."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyplm
from tests.laws import FEW, MODEL, relative_error
from tests.support.tuning import model as encoder
from tests.tuning.align.test_learner import SIZES, some_sequences, tiny
from tinyplm.core import flatten
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat.formats import TEMPLATES, Template, encode, folder_template
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.align.sft import SFTSettings, answer_likelihood, batch_of, learner_batch, sft
from tinyplm.tuning.data.conversations import conversation, conversations, plain, preference, preferences, prompt_ids, shortened
from tinyplm.tuning.data.packing import packed_arrays, packing
from tinyplm.tuning.data.pairs import check_pairs
from tinyplm.tuning.data.records import check_records, read_records, write_records
from tinyplm.tuning.data.sequences import TokenSequence, answered
from tinyplm.tuning.prompts.cloze import Cloze, Prefix, Verbaliser, label_probabilities
from tinyplm.tuning.prompts.few_shot import FewShot
from tinyplm.tuning.prompts.instructions import Task, fields, fill, instruction_messages

TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Is it late?"},
        {"role": "assistant", "content": "Yes, very."}, {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Bye bye"}]  # fmt: skip
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|begin_of_text|>", "<|start_header_id|>",
           "<|end_header_id|>", "<|eot_id|>"]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["Is it late? Yes, very. Thanks Bye bye. Be kind. ### Instruction: Response: user assistant system [INST]"] * 3
    return Tokenizer.train(texts, 330, SPECIAL)


# ------------------------------------------------------------------------------------------------------- records

GOOD = {
    "instruction": {"instruction": "Add.", "input": "2 3", "output": "5"},
    "conversation": {"messages": TALK},
    "preference": {"prompt": "Is it late?", "chosen": "Yes.", "rejected": "No."},
    "prompt": {"prompt": [{"role": "user", "content": "2 + 3"}], "answer": 5},
}


@pytest.mark.parametrize("kind", GOOD)
def test_records_are_read_and_written(kind, tmp_path):
    path = tmp_path / "file.jsonl"
    write_records(path, [GOOD[kind], {**GOOD[kind], "source": "你好\n"}])
    assert path.read_text(encoding="utf-8").count("\n") == 2
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\n  \n")
    assert (
        read_records(path, kind)
        == [GOOD[kind], {**GOOD[kind], "source": "你好\n"}]
        == check_records(read_records(path, kind), kind)
    )


def test_forms_become_one():
    assert check_records([{"instruction": "Add.", "output": "5"}], "instruction")[0]["input"] == ""
    asked, yes, no = TALK[1:2], {"role": "assistant", "content": "Yes."}, {"role": "assistant", "content": "No."}
    expected = {"prompt": asked, "chosen": "Yes.", "rejected": "No."}
    for record in ({"chosen": [*asked, yes], "rejected": [*asked, no]}, {"prompt": asked, "chosen": [yes], "rejected": [no]},
                   {"prompt": asked, "chosen": [*asked, yes], "rejected": "No."}):  # fmt: skip
        assert check_records([record], "preference") == [expected]


@pytest.mark.parametrize("kind, line, message", [
    ("instruction", b"{", "line 2: expected valid JSON"),
    ("instruction", b"\xff\xfe", "line 2: expected valid UTF-8"),
    ("instruction", b'["a"]', "line 2: expected an object, got"),
    ("instruction", b'{"instruction": "a", "instruction": "b", "output": "c"}', "the key 'instruction' 2 times"),
    ("instruction", b'{"instruction": "a", "output": NaN}', "expected valid JSON, got NaN"),
    ("instruction", b'{"instruction": "a"}', "line 2: expected a text 'output', got only 'instruction'"),
    ("instruction", b'{"instruction": 7, "output": "a"}', "expected a text 'instruction', got 7"),
    ("instruction", b'{"instruction": "a", "output": " "}', "line 2: output: expected a text, got an empty one"),
    ("conversation", b'{"message": []}', "line 2: expected \"messages\", got only 'message'"),
    ("conversation", b'{"messages": [{"role": "user", "content": "a"}]}', "expected a turn of the assistant"),
    ("conversation", b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}',
     "got an empty one"),
    ("conversation", b'{"messages": [{"role": "assistant", "content": "a"}]}', "line 2: messages: expected an option"),
    ("conversation", b'{"messages": "a"}', "expected a list of messages, got 'a'"),
    ("preference", b'{"chosen": "a", "rejected": "b"}', "line 2: expected .prompt., or conversations"),
    ("preference", b'{"prompt": "a", "chosen": "b", "rejected": "b"}', "line 2: expected different answers"),
    ("preference", b'{"prompt": "a", "chosen": "b", "rejected": ""}', "line 2: rejected: expected a text, got an empty one"),
    ("preference", b'{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": '
                   b'[{"role": "user", "content": "x"}, {"role": "assistant", "content": "c"}]}', "expected equal prompts"),
    ("preference", b'{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": "c"}',
     "expected a prompt in both conversations"),
    ("preference", b'{"prompt": "a", "chosen": [], "rejected": "c"}', "chosen: expected an answer of the assistant"),
    ("prompt", b'{"prompt": ""}', "line 2: prompt: expected a text, got an empty one"),
    ("prompt", b'{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
     "expected a last message of the user"),
])  # fmt: skip
def test_a_bad_line_is_named(kind, line, message, tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_bytes(json.dumps(GOOD[kind]).encode() + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=f"file.jsonl, {message}" if message.startswith("line") else message) as error:
        read_records(path, kind)
    assert "file.jsonl, line 2" in str(error.value)


def test_other_bad_files(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="empty.jsonl: expected one prompt per line, got no records"):
        read_records(tmp_path / "empty.jsonl", "prompt")
    with pytest.raises(ValueError, match="none.jsonl: expected a file, got none .no such file."):
        read_records(tmp_path / "none.jsonl", "prompt")
    with pytest.raises(ValueError, match="kind: expected one of .*, got 'chat'"):
        read_records(tmp_path / "empty.jsonl", "chat")
    with pytest.raises(ValueError, match="prompt 1: expected an object, got 'a'"):
        check_records([GOOD["prompt"], "a"], "prompt")
    with pytest.raises(ValueError):
        write_records(tmp_path / "bad.jsonl", [{"a": float("nan")}])
    assert not (tmp_path / "bad.jsonl").exists()


# ------------------------------------------------------------------------------------------------------- conversations


def counted(tokenizer, sequence):
    """The runs of counted tokens, decoded."""
    runs, last = [], False
    for i, counts in zip(sequence.ids, sequence.counts):
        if counts and not last:
            runs.append([])
        if counts:
            runs[-1].append(i)
        last = counts
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("name, answers", [
    ("chatml", ["Yes, very.<|im_end|>", "Bye bye<|im_end|>"]),
    ("llama2", [" Yes, very. </s>", " Bye bye </s>"]),
    ("llama3", ["Yes, very.<|eot_id|>", "Bye bye<|eot_id|>"]),
    ("alpaca", ["Yes, very.\n\n", "Bye bye<|endoftext|>"]),
    ("chatglm2", ["Yes, very.", "Bye bye<|endoftext|>"]),
    ("chatglm3", ["\n Yes, very.", "\n Bye bye<|endoftext|>"]),
    ("glm4", ["\nYes, very.", "\nBye bye<|endoftext|>"]),
])  # fmt: skip
def test_only_the_assistants_words_count(tokenizer, name, answers):
    template = TEMPLATES[name]
    sequence = conversation(tokenizer, template, TALK)
    assert counted(tokenizer, sequence) == answers
    for k in (2, 4):  # what precedes an answer is what a chat would see
        seen = encode(tokenizer, template, TALK[:k])
        assert sequence.ids[: len(seen)] == seen and sequence.counts[len(seen)] and not sequence.counts[len(seen) - 1]
    assert prompt_ids(tokenizer, template, TALK[:2]) == sequence.ids[: sequence.counts.index(True)]


def test_a_folders_own_template(tokenizer):
    source = "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}" \
             "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"  # fmt: skip
    files = {"tokenizer_config.json": json.dumps({"chat_template": source, "eos_token": "<|im_end|>"}).encode()}
    sequence = conversation(tokenizer, folder_template(files), TALK)
    assert counted(tokenizer, sequence) == ["Yes, very.<|im_end|>", "Bye bye<|im_end|>"]


def test_a_token_over_the_border_is_taken_apart(tokenizer):
    """The prompt ends with a space, which the tokenizer would merge into the next word."""
    spaced = Template(lambda messages, add_generation_prompt=True: "".join(
        f"{m['role'][0]}> {m['content']}" for m in messages) + "a> " * add_generation_prompt, ())  # fmt: skip
    sequence = conversation(tokenizer, spaced, TALK[1:3])
    seen = encode(tokenizer, spaced, TALK[1:2])
    assert sequence.ids[: len(seen)] == seen and counted(tokenizer, sequence) == ["Yes, very.<|endoftext|>"]
    assert tokenizer.encode("a> Yes")[: len(tokenizer.encode("a> "))] != tokenizer.encode("a> ")


def test_bad_conversations(tokenizer):
    for messages, message in ((TALK[:2], "expected a turn of the assistant"),
                              ([TALK[1], {"role": "assistant", "content": " "}], "got an empty one"),
                              ([TALK[1], {"role": "assistant", "content": "a<|im_end|>"}], "special token"),
                              ([], "messages: expected an optional system message")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            conversation(tokenizer, TEMPLATES["chatml"], messages)
    forgetful = Template(lambda messages, add_generation_prompt=True: "".join(m["content"] for m in messages[-2:]), ())
    with pytest.raises(ValueError, match="renders a turn the same whatever follows"):
        conversation(tokenizer, forgetful, TALK)
    with pytest.raises(ValueError, match="record 1: messages: expected a turn of the assistant"):
        conversations(tokenizer, TEMPLATES["chatml"], [{"messages": TALK}, {"messages": TALK[:2]}])
    with pytest.raises(ValueError, match="texts that are not empty, got 'a' and ''"):
        plain(tokenizer, "a", "")
    with pytest.raises(ValueError, match="template: expected a Template, since the prompt"):
        prompt_ids(tokenizer, None, TALK[:2])


def test_what_is_too_long_is_cut_and_said(tokenizer):
    some = [answered([1, 2], [3, 4]), answered([1], [2, 3, 4, 5]), answered([1, 2, 3, 4, 5], [6])]
    found = shortened(some, 4)
    assert [s.ids for s in found.sequences] == [[1, 2, 3, 4], [1, 2, 3, 4]] and (found.cut, found.dropped) == (1, 1)
    assert shortened(some, None).sequences == some
    with pytest.raises(ValueError, match="max_length: expected room for the start of an answer, got 4"):
        shortened(some[2:], 4)
    whole = conversations(tokenizer, TEMPLATES["chatml"], [{"messages": TALK}])
    assert conversations(tokenizer, TEMPLATES["chatml"], [{"messages": TALK}], max_length=30).cut == 1 and whole.cut == 0


@pytest.mark.parametrize("name", ["chatml", None])
def test_preferences_share_their_prompt(tokenizer, name):
    template = None if name is None else TEMPLATES[name]
    pairs = preferences(tokenizer, template, [GOOD["preference"]])
    check_pairs(pairs, context=None, vocabulary=tokenizer.vocab_size)
    end = "<|endoftext|>" if name is None else "<|im_end|>"
    assert [counted(tokenizer, side) for side in pairs[0]] == [[f"Yes.{end}"], [f"No.{end}"]]
    if template:
        chosen, _ = preference(tokenizer, template, {"prompt": TALK[:4], "chosen": "a", "rejected": "b"})
        assert counted(tokenizer, chosen) == ["a<|im_end|>"]  # the earlier answer is part of the prompt


# ------------------------------------------------------------------------------------------------------- instructions


def test_a_task_has_several_phrasings():
    task = Task("addition", ["{a} + {b} = ?", "What is {a} plus {b}?", "Add {a} to {b}, {{please}}."], "{c}")
    asked = {task.messages({"a": 2, "b": 3, "c": 5}, key=key)[0]["content"] for key in range(30)}
    assert asked == {"2 + 3 = ?", "What is 2 plus 3?", "Add 2 to 3, {please}."}
    assert task.messages({"a": 2, "b": 3, "c": 5}, key=4) == task.messages({"a": 2, "b": 3, "c": 5}, key=4)
    assert task.messages({"a": 2, "b": 3, "c": 5}, key=4)[1] == {"role": "assistant", "content": "5"}
    for make, message in ((lambda: task.messages({"a": 2, "b": 3}, key=0), "expected a sample with 'c' for '{c}', got 'a', 'b'"),
                          (lambda: Task("t", ["{a"], "b"), "phrasings: expected fields .* got '{a'"),
                          (lambda: Task("t", ["{a.b}"], "b"), "plain names"),
                          (lambda: Task("t", ["{a!r}"], "b"), "plain names"), (lambda: Task("t", ["a", "a"], "b"), "different"),
                          (lambda: Task("t", [], "b"), "one or more"), (lambda: fill("{a}", {}), "got no fields")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            make()
    assert fields("{b} {a} {{c}}") == ["b", "a"]


def test_an_instruction_with_and_without_input():
    assert [m["content"] for m in instruction_messages(GOOD["instruction"])] == ["Add.\n\n2 3", "5"]
    assert instruction_messages({"instruction": "Say hi.", "output": "Hi"})[0]["content"] == "Say hi."


# ------------------------------------------------------------------------------------------------------- packing


def test_first_fit_the_longest_first():
    assert packing([3, 5, 2, 4, 1], 6) == [[1, 4], [3, 2], [0]]
    assert packing([6], 6) == [[0]] and packing([], 6) == []
    with pytest.raises(ValueError, match="sequence 1: expected at most 6 tokens, the length of a row, got 7"):
        packing([1, 7], 6)


@pytest.mark.parametrize("family", SIZES)
def test_packed_sequences_do_not_see_each_other(family):
    """The loss and all gradients equal those of the same sequences, each in its own row."""
    model, sequences = tiny(family), some_sequences(9)
    rows = packing([len(s) for s in sequences], 16)
    assert len(rows) < len(sequences) and sorted(n for row in rows for n in row) == list(range(9))
    results = []
    for batch, total in (batch_of(sequences), learner_batch(packed_arrays(sequences, rows, 16))):
        learner = Learner(model, SFTSettings(workers=2))
        results.append((learner.accumulate(batch, answer_likelihood(total))["loss"], flatten(learner.optimizer.gradient.tree)))
    assert results[0][0] == pytest.approx(results[1][0], rel=MODEL)
    assert relative_error(results[1][1], results[0][1]) < MODEL


def test_packing_is_a_setting_of_sft():
    def run(**changes):
        model = tiny(dtype="float32")
        return sft(
            model, some_sequences(20), SFTSettings(steps=30, batch_size=3, learning_rate=1e-2, **changes), progress=False
        ), model

    result, model = run(packed=16)
    assert len(result.history) == 30 and result.history[-1]["loss"] < result.history[0]["loss"]
    with pytest.raises(ValueError, match="expected at most 4 tokens, the length of a row"):
        run(packed=4)


# ------------------------------------------------------------------------------------------------------- examples in prompts

EXAMPLES = [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(6)]


def test_shots_by_hand():
    few = FewShot("Q: {text}\nA:", " {label}", EXAMPLES[:2], instruction="Answer.", separator="\n--\n")
    assert few.prompt({"text": "x"}, 0) == "Answer.\n--\nQ: x\nA:"
    assert few.prompt({"text": "t1"}, 1) == "Answer.\n--\nQ: t0\nA: a\n--\nQ: t1\nA:"  # never the question itself
    with pytest.raises(ValueError, match="shots: expected 0 to 1"):
        few.prompt({"text": "t1"}, 2)


def test_shots_are_balanced_chosen_by_key_and_left_out_where_they_do_not_fit():
    few = FewShot("{text}", "={label}", EXAMPLES, separator=" ", balance="label")
    chosen = [few.choose("x", 4, key=key) for key in range(20)]
    assert all(sorted(e["label"] for e in some) == ["a", "a", "b", "b"] for some in chosen)
    assert len({tuple(e["text"] for e in some) for some in chosen}) > 5 and few.choose("x", 4, key=3) == chosen[3]
    prompt, count = few.parts({"text": "x"}, 4, key=3, fits=lambda text: len(text) <= 11)
    assert count == 2 == few.count({"text": "x"}, 4, key=3, fits=lambda text: len(text) <= 11)
    assert few.prompt({"text": "x"}, 4, key=3).endswith(prompt)  # the last ones are kept
    for make, message in ((lambda: few.prompt({"text": "x"}, 2, fits=lambda text: False), "expected one that fits"),
                          (lambda: FewShot("{q}", "{label}", EXAMPLES), "example 0: expected a sample with 'q' for '{q}'"),
                          (lambda: FewShot("{text}", "", EXAMPLES, balance="kind"), "field of balance, 'kind'")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            make()


# ------------------------------------------------------------------------------------------------------- verbalisers


def test_label_scores_are_means_over_words():
    verbaliser = Verbaliser({"good": ["fine", "great"], "bad": "poor"})
    scores = verbaliser.label_scores(np.log([[0.2, 0.4, 0.1]]))
    assert np.allclose(scores, np.log([[0.3, 0.1]]), rtol=FEW)
    for words, message in (({"a": "x"}, "two labels or more"), ({"a": "x", "b": ["y", "x"]}, "expected each word once, got 'x'"),
                           ({"a": "x", "b": []}, "two labels or more")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Verbaliser(words)


def test_a_cloze_is_the_models_own_probability_at_the_gap():
    model = encoder("masked_lm", names=("x", "y"))
    cloze = Cloze("{text} [MASK]", Verbaliser({"animal": ["dog", "bird"], "money": "old"}))
    found = cloze.word_scores(model, [{"text": "the old"}, {"text": "a dog sat on"}], batch_size=1)
    tokenizer = model.tokenizer
    ids = tokenizer.encode("the old [MASK]", allow_special=True, add_special_tokens=True)
    logits = model([ids])[0]["logits"][0, ids.index(tokenizer.named_id("mask_token"))]
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    expected = [p[tokenizer.token_to_id(word)] for word in ("dog", "bird", "old")]
    assert np.allclose(np.exp(found[0]), expected, rtol=MODEL)
    labels = label_probabilities(cloze, model, [{"text": "the old"}])
    animal, money = (expected[0] + expected[1]) / 2, expected[2]
    assert np.allclose(labels, [[animal / (animal + money), money / (animal + money)]], rtol=MODEL)
    for make, message in ((lambda: Cloze("{text}", cloze.verbaliser), r"expected one \[MASK\]"),
                          (lambda: Cloze("[MASK]", Verbaliser({"a": "cat", "b": "old"})).word_scores(model, [{}]),
                           "expected words of one token, which fit the gap, got 'cat'"),
                          (lambda: cloze.word_scores(model, [{}, {"text": "a"}]), "sample 0: expected a sample with 'text'"),
                          (lambda: cloze.word_scores(model, [{"text": "a [MASK] b"}]), "expected text without special tokens"),
                          (lambda: cloze.word_scores(encoder(), [{"text": "a"}]), "with task masked_lm")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            make()


def test_words_of_several_tokens_behind_a_text(tokenizer):
    model = tinyplm.create("llama", key=1, dtype="float64", **{**SIZES["llama"], "vocab_size": tokenizer.vocab_size,
                                                              "max_position_embeddings": 64})  # fmt: skip
    model.tokenizer = tokenizer
    prefix = Prefix("{text} It is", Verbaliser({"yes": [" late", " very late"], "no": " kind"}))
    samples = [{"text": "Thanks."}, {"text": "Is it?"}]
    found = prefix.word_scores(model, samples, batch_size=2)
    for n, sample in enumerate(samples):
        prompt = tokenizer.encode(f"{sample['text']} It is")
        for k, word in enumerate((" late", " very late", " kind")):
            ids = tokenizer.encode(word)
            logits = model([[*prompt, *ids]])[0]["logits"][0]
            log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            expected = sum(log_p[len(prompt) - 1 + i, token] for i, token in enumerate(ids))
            assert found[n, k] == pytest.approx(expected, rel=MODEL)
    lengths = [len(tokenizer.encode(word)) for word in (" late", " very late", " kind")]
    mean = Prefix(prefix.template, prefix.verbaliser, mean=True).word_scores(model, samples)
    assert np.allclose(mean, found / lengths, rtol=MODEL)
    assert np.allclose(label_probabilities(prefix, model, samples).sum(axis=1), 1) and max(lengths) > 1
    assert np.allclose(label_probabilities(prefix, model, samples[:1], calibrate=samples[0]), 0.5)  # calibrated against itself
    assert prefix.sequence(tokenizer, samples[0], "no") == prefix.sequences(tokenizer, samples[0])[2]
    with pytest.raises(ValueError, match="label: expected one of yes, no, got 'maybe'"):
        prefix.sequence(tokenizer, samples[0], "maybe")
    with pytest.raises(ValueError, match="samples: expected at least 1, got 0"):
        label_probabilities(prefix, model, [])


def test_sequences_say_what_counts():
    assert TokenSequence([1, 2], [False, True]) == answered([1], [2])
