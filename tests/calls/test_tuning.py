"""The user-facing calls of tuning and training, with each argument in turn of the wrong kind or misplaced: another model,
another recipe's settings, one text where several are expected.

The tool is tests/support/wrong_calls.py.  Nothing is trained before the arguments are checked.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinyplm
from tests.support import tuning
from tests.support.wrong_calls import complaint, wrong_calls
from tinyplm.hub.folders import gradients_by_hub_name
from tinyplm.models.config import labels
from tinyplm.optim import Adafactor, AdamW
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat.formats import TEMPLATES
from tinyplm.training import checkpoint, log
from tinyplm.training.incremental import replay
from tinyplm.training.loop import train
from tinyplm.training.samples import CausalSamples, CausalValidation, FixedBatches
from tinyplm.training.settings import Settings
from tinyplm.tuning.adapters.lora import load_lora, lora_of, merge_lora
from tinyplm.tuning.adapters.prefix import load_prefix, prefix_of, with_prefix
from tinyplm.tuning.adapters.ptuning import load_ptuned
from tinyplm.tuning.adapters.soft_prompt import SoftPrompted, continuation, load_rows, soft_prompt
from tinyplm.tuning.align.distill import DistillSettings, distill
from tinyplm.tuning.align.dpo import DPOSettings, dpo
from tinyplm.tuning.align.grpo import GRPOSettings, grpo
from tinyplm.tuning.align.kto import KTOSettings, kto
from tinyplm.tuning.align.ppo import PPOSettings, model_reward, ppo
from tinyplm.tuning.align.rejection import accepted_answers
from tinyplm.tuning.align.reward import RewardSettings, pair_scores, reward, score
from tinyplm.tuning.align.rollouts import rollouts
from tinyplm.tuning.align.rules import parse_rule, record_reward, text_reward, weighted
from tinyplm.tuning.align.sft import SFTSettings, answer_loss, sft
from tinyplm.tuning.data.chat_format import set_chat_format, with_tokens
from tinyplm.tuning.data.conversations import conversations, plain, preferences
from tinyplm.tuning.data.feedback import feedback
from tinyplm.tuning.data.records import check_records, kind_of, split, write_records
from tinyplm.tuning.data.sequences import TokenSequence, answered, sequence_arrays
from tinyplm.tuning.finetuning.answers import answering
from tinyplm.tuning.finetuning.choices import multiple_choice
from tinyplm.tuning.finetuning.classes import classification
from tinyplm.tuning.finetuning.clozes import cloze_classification
from tinyplm.tuning.finetuning.delimiters import with_delimiters
from tinyplm.tuning.finetuning.finetune import finetune
from tinyplm.tuning.finetuning.predict import predict
from tinyplm.tuning.finetuning.tags import tagging
from tinyplm.tuning.prompts.cloze import Cloze, Prefix, Verbaliser, label_probabilities
from tinyplm.tuning.prompts.instructions import instruction_messages
from tinyplm.tuning.settings import TuningSettings

QUICK = {"steps": 1, "batch_size": 2, "warmup": 0}
TOKENS = np.arange(200) % 11
SEQUENCES = [answered([1, 2], [3]), answered([4], [5, 6])]
PAIRS = [(answered([1], [2]), answered([1], [3]))] * 2
FEEDBACK = [(answered([1], [2]), True), (answered([1], [3]), False)]
PROMPTS = [[1, 2], [3]]
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
PREFERENCE = {"prompt": "a", "chosen": "b", "rejected": "c"}
WORDS = Verbaliser({"good": " cat", "bad": " dog"})
TEXT = Tokenizer.train(tuning.TEXTS, 300, kind="byte-level BPE", special_tokens=["<|endoftext|>"])


def decoder(key=0, *, family="gpt2", vocab_size=300, **changes):
    """A tiny decoder with a tokenizer."""
    sizes = {"gpt2": {"n_positions": 32, "n_embd": 8, "n_layer": 2, "n_head": 2},
             "llama": {"max_position_embeddings": 32, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
                       "num_attention_heads": 2}}[family]  # fmt: skip
    made = tinyplm.create(family, key=key, vocab_size=vocab_size, bos_token_id=0, eos_token_id=0, **sizes, **changes)
    made.tokenizer = TEXT
    return made


def scorer():
    return decoder(task="sequence_classification", **labels(["reward"]))


def rewards(prompts, answers):
    return [float(len(answer)) for answer in answers]


MODEL, OTHER, SCORER, ENCODER = decoder(), decoder(family="llama"), scorer(), tuning.model()
DATA = classification(ENCODER, tuning.TEXTS, tuning.KINDS)
CHAT = TEMPLATES["chatml"]
# Words that a message may use instead of the argument's name.
ALIASES = {
    "sequences": ["sequence"], "pairs": ["pair"], "records": ["record"], "validation": ["sequence", "pair", "samples"],
    "labels": ["text 0", "label"], "answers": ["question 0"], "tags": ["sentence"], "sentences": ["sentence"],
    "theta": ["lora", "prefix", "transform"], "transform": ["theta"], "texts": ["text", "label"], "train": ["training"],
    "teacher": ["vocabulary"], "reference": ["vocabulary"], "samples": ["sample"], "choices": ["choice"],
    "contexts": ["context"], "questions": ["question"], "training": ["tokens"], "targets": ["lora"],
    "margins": ["margin"], "prompt": ["text"], "answer": ["text"], "settings": ["max_new_tokens"],
    "params": ["rate"], "rules": ["rule"], "text": ["rule"],
}  # fmt: skip
NUMBERS = itertools.count()


def no_complaints(function, **right):
    """The valid call works, and the error for each invalid argument names it."""
    assert complaint(lambda: function(**right)) is None
    found = wrong_calls(function, right, aliases=ALIASES)
    found = [problem for problem in found if " = class: " not in problem]  # a class is callable: its own error
    assert not found, "\n".join(found)


RECIPES = {
    "sft": (sft, {"model": MODEL, "sequences": SEQUENCES, "settings": SFTSettings(**QUICK), "validation": SEQUENCES,
                  "resume": False}),
    "dpo": (dpo, {"model": MODEL, "pairs": PAIRS, "settings": DPOSettings(**QUICK), "reference": MODEL,
                  "resume": False}),
    "kto": (kto, {"model": MODEL, "feedback": FEEDBACK, "settings": KTOSettings(**QUICK), "validation": FEEDBACK,
                  "reference": MODEL, "resume": False}),
    "reward": (reward, {"model": SCORER, "pairs": PAIRS, "settings": RewardSettings(**QUICK), "margins": [1.0, 2.0],
                        "resume": False}),
    "grpo": (grpo, {"model": MODEL, "prompts": PROMPTS, "reward": rewards, "stop_ids": [0],
                    "settings": GRPOSettings(**QUICK, group=2, max_new_tokens=2), "resume": False}),
    "ppo": (ppo, {"model": MODEL, "prompts": PROMPTS, "reward": rewards, "reference": MODEL,
                  "settings": PPOSettings(**QUICK, max_new_tokens=2, minibatches=1), "resume": False}),
    "distill": (distill, {"student": MODEL, "teacher": OTHER, "sequences": SEQUENCES, "settings": DistillSettings(**QUICK),
                          "resume": False}),
    "soft_prompt": (soft_prompt, {"model": MODEL, "sequences": SEQUENCES, "settings": SFTSettings(**QUICK), "rows": 2,
                                  "resume": False}),
    "finetune": (finetune, {"model": ENCODER, "train": DATA, "validation": DATA,
                            "settings": TuningSettings(epochs=1, batch_size=8), "resume": False}),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, right = RECIPES[name]
    no_complaints(lambda **given: function(**given, progress=False), **right)


BUILDERS = {
    "classification": (classification, {"model": ENCODER, "texts": ["a cat"], "labels": ["animal"], "max_length": 8}),
    "both_orders": (classification, {"model": with_delimiters(SCORER), "texts": ["a cat"], "labels": [0.5], "pairs": ["a dog"],
                                     "both_orders": True}),
    "tagging": (tagging, {"model": tuning.model("token_classification"), "sentences": [["a", "cat"]], "tags": [[0, 1]]}),
    "answering": (answering, {"model": tuning.model("question_answering"), "questions": ["a"], "contexts": ["a cat"],
                              "answers": [(2, 5)], "longest": 3, "threshold": 0.5}),
    "multiple_choice": (multiple_choice, {"model": tuning.model("multiple_choice"), "texts": ["a"], "choices": [["b", "c"]],
                                          "labels": [0], "questions": ["d"], "max_length": 9}),
    "cloze_classification": (cloze_classification, {"model": MODEL, "pattern": Prefix("{text} is", WORDS),
                                                    "samples": [{"text": "a"}], "labels": ["good"]}),
    "with_delimiters": (with_delimiters, {"model": SCORER, "key": 1}),
    "conversations": (conversations, {"tokenizer": TEXT, "template": CHAT, "records": [{"messages": TURNS}], "max_length": 99}),
    "preferences": (preferences, {"tokenizer": TEXT, "template": CHAT, "records": [PREFERENCE]}),
    "feedback": (feedback, {"tokenizer": TEXT, "template": CHAT, "records": [{"prompt": "a", "answer": "b", "label": True}]}),
    "plain": (plain, {"tokenizer": TEXT, "prompt": "a", "answer": "b", "end_id": 0}),
    "set_chat_format": (set_chat_format, {"model": decoder(), "template": CHAT, "add_tokens": True}),
    "with_tokens": (with_tokens, {"model": MODEL, "tokens": ["<a>", "<b>"]}),
    "check_records": (check_records, {"records": [PREFERENCE], "kind": ["prompt", "preference"]}),
    "kind_of": (kind_of, {"record": PREFERENCE}),
    "split": (split, {"records": [PREFERENCE, {"prompt": "d"}], "share": 0.5, "seed": 1}),
    "record_reward": (record_reward, {"rule": "exact", "tokenizer": TEXT, "records": [{"answer": 1}], "stop_ids": [0]}),
    "parse_rule": (parse_rule, {"text": "exact:1,format:0.2", "files": False}),
    "weighted": (weighted, {"rules": {"exact": 1.0}}),
    "label_probabilities": (label_probabilities, {
        "pattern": Prefix("{text} is a", WORDS), "model": MODEL, "samples": [{"text": "it"}]}),
    "predict": (predict, {"model": ENCODER, "samples": DATA, "batch_size": 2, "workers": 1}),
    "answer_loss": (answer_loss, {"model": MODEL, "sequences": SEQUENCES, "batch_size": 2, "workers": 1}),
    "score": (score, {"model": SCORER, "sequences": SEQUENCES, "batch_size": 2, "workers": 1}),
    "pair_scores": (pair_scores, {"model": SCORER, "pairs": PAIRS}),
    "model_reward": (model_reward, {"model": SCORER, "offset": 0.5, "workers": 1}),
    "text_reward": (text_reward, {"rule": lambda prompt, answer, finished: 1.0, "tokenizer": TEXT, "stop_ids": [0]}),
    "rollouts": (rollouts, {"model": MODEL, "prompts": PROMPTS, "max_new_tokens": 2, "samples": 1, "stop_ids": [0],
                              "first_prompt": 1}),
    "accepted_answers": (accepted_answers, {
        "model": MODEL, "prompts": PROMPTS, "records": [{"prompt": "a"}, {"prompt": "b"}], "reward": rewards, "max_new_tokens": 2,
        "samples": 2, "keep": "all", "threshold": 1.0, "stop_ids": [0], "progress": False}),
    "continuation": (continuation, {"prompted": SoftPrompted(MODEL, np.zeros((2, 8), np.float32)), "prompt": [1, 2],
                                    "max_new_tokens": 2, "stop_ids": [0], "seed": 0}),
    "lora_of": (lora_of, {"model": MODEL, "rank": 2, "alpha": 4.0, "key": 0, "targets": ["Wq"]}),
    "merge_lora": (merge_lora, {"model": MODEL, "theta": lora_of(MODEL, rank=2)["theta"], "alpha": 4.0}),
    "with_prefix": (with_prefix, {"model": MODEL, "theta": prefix_of(MODEL, rows=2)["theta"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDERS)
def test_builders_measures_and_adapters(name):
    no_complaints(BUILDERS[name][0], **BUILDERS[name][1])


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("function", [sft, train])
def test_training(function, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"sequences": SEQUENCES} if function is sft else {"training": TOKENS, "validation": TOKENS[:40]}
    settings = SFTSettings(**QUICK) if function is sft else Settings(**QUICK, sequence_length=5)
    right = {"model": MODEL, **data, "settings": settings}
    if not write and function is train:
        return no_complaints(lambda **given: train(**given, out=tmp_path / str(next(NUMBERS)), progress=False), **right)
    for value in ("", 3, b"x", "a\0b", "x" * 300, "x/" * 3000, [], *([None] if function is train else [])):
        with pytest.raises(ValueError, match="^out: expected a path, got "):
            function(**right, out=value, progress=False)
    assert not list(tmp_path.iterdir())


def test_checkpoints_logs_and_samples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    train(decoder(), TOKENS, TOKENS[:40], Settings(**QUICK, sequence_length=5), out=out, progress=False)
    assert checkpoint.find(str(out)) == checkpoint.find(out) == out / "step-1" and checkpoint.started(str(out))
    assert list(log.read(str(out / "log.jsonl"))) == list(log.read(out / "log.jsonl"))
    settings = Settings(**QUICK, sequence_length=5)
    samples = CausalSamples(TOKENS, settings)
    no_complaints(CausalSamples, tokens=TOKENS, settings=settings)
    no_complaints(CausalValidation, tokens=TOKENS, settings=settings)
    no_complaints(FixedBatches, samples=samples, count=2, batch_size=2)
    log.export_csv(out / "log.jsonl", str(out / "log.csv"))
    no_complaints(lambda **given: log.export_csv(out / "log.jsonl", **given), csv=out / "log.csv")
    for function in (checkpoint.find, load_lora, load_prefix, load_ptuned, load_rows, Tokenizer.load, TEXT.save,
                     lambda p: replay(p, p), lambda p: log.export_csv(p, out / "log.csv")):  # fmt: skip
        for value in (None, 3, b"x", ""):
            with pytest.raises(ValueError, match=": expected a path, got "):
                function(value)
    with pytest.raises(TypeError, match="samples and validation data .see training.samples., got CausalSamples and CausalVal"):
        train(MODEL, samples, CausalValidation(TOKENS, settings), settings, out=tmp_path / "x", progress=False)
    for bad, message in ((TOKENS - 1, "tokens: expected ids from 0 to .*, got -1"),
                         (TOKENS[:0], "expected an array .N,. of integers, two or more, got int64"),
                         (TOKENS + 300, "tokens: expected ids from 0 to .*, got 310")):  # fmt: skip
        for given in ((bad, TOKENS), (TOKENS, bad)):
            with pytest.raises(ValueError, match=message):
                train(MODEL, *given, settings, out=tmp_path / "x", progress=False)
    assert not (tmp_path / "x").exists()


def test_the_optimiser_and_gradients():
    no_complaints(AdamW, params=MODEL.params, decays=lambda path, a: True, rates=lambda path, a: 1.0)
    treated = {"decays": lambda path, a: True, "rates": lambda path, a: 1.0}
    no_complaints(Adafactor, params=MODEL.params, eps=(1e-30, 1e-3), scale=True, beta1=0.5, **treated)
    no_complaints(gradients_by_hub_name, model=MODEL, dparams=MODEL.params)
    with pytest.raises(ValueError, match="dparams: expected gradients of the model"):
        gradients_by_hub_name(MODEL, OTHER.params)
    for name in ("targets", "total"):
        with pytest.raises(ValueError, match=f"{name}: expected a dict with logits alone, got "):
            right = {"targets": {"logits": np.array([[2]])}, "total": {"logits": 1}}
            MODEL.loss_in_parts(lambda *a: None, {"input_ids": [[1]]}, **right | {name: np.array([[2]])})


@pytest.mark.parametrize(("call", "message"), [
    (lambda: sft(MODEL, SEQUENCES, **lora_of(decoder(1), rank=2)), "transform: expected one of this model with its present"),
    (lambda: sft(MODEL, SEQUENCES, **lora_of(OTHER, rank=2)), "transform: expected one of this model"),
    (lambda: sft(OTHER, SEQUENCES, **prefix_of(MODEL, rows=2)), "transform: expected one of this model"),
    (lambda: grpo(MODEL, PROMPTS, lambda texts: [1.0]), "reward: expected a function of .prompts, answers., got one of .texts."),
    (lambda: record_reward(lambda question: 1.0, TEXT, [{}]), "rule <lambda>: expected a function of some of .prompt, answer, "),
    (lambda: record_reward(5, TEXT, [{}]), "rule int: expected a function of some of .prompt, answer, .*, got 5"),
    (lambda: grpo(MODEL, PROMPTS, record_reward("format", TEXT, [{}]), GRPOSettings(max_new_tokens=2)),
     "reward: expected 2 records, one per prompt, got 1"),
    (lambda: text_reward(lambda answer: 1.0, TEXT), "rule: expected a function of .prompt, answer, finished., got one of"),
    (lambda: answered("ab", "cd"), "prompt: expected token ids, integers, got 'ab'"),
    (lambda: TokenSequence([1.5, 2], [False, True]), "ids: expected token ids, integers, got .1.5, 2."),
    (lambda: sequence_arrays([]), "sequences: expected at least 1, got 0"),
    (lambda: lora_of(MODEL, targets="Wq"), "targets: expected a list of names such as Wq, .*, got 'Wq'"),
    (lambda: multiple_choice(tuning.model("multiple_choice"), ["a"], ["no"]), "choices.0.: expected a list of strings"),
    (lambda: multiple_choice(tuning.model("multiple_choice"), ["a"], [["b", None]]), "choices.0.: expected one or more str"),
    (lambda: classification(ENCODER, set(tuning.TEXTS), [0] * 10), "texts: expected a list of strings, got {"),
    (lambda: classification(tuning.model(id2label={0: "x", 1: "x"}), ["a"], ["x"]), "expected a label of one class, got 'x'"),
    (lambda: classification(ENCODER, ["a"], [0.5]), "text 0: expected the number or the name of a label, got 0.5"),
    (lambda: DATA.batch([-1]), "numbers: expected integers from 0 to 9, got .-1."),
    (lambda: answering(tuning.model("question_answering"), ["a"], ["a cat"], [{"text": "cat", "answer_start": 2}]),
     "question 0: expected None, a span .start, end. of its context, or a list of such, got {'text'"),
    (lambda: Cloze("a [MASK]", {"good": "cat", "bad": "dog"}), "verbaliser: expected a Verbaliser, got {"),
    (lambda: Prefix("{text} is", WORDS, mean="yes"), "mean: expected True or False, got 'yes'"),
    (lambda: check_records("abc", "instruction"), "records: expected a list of records, each a dict, got 'abc'"),
    (lambda: instruction_messages({"instruction": "a"}), "record: expected a dict with texts 'instruction' and 'output'"),
    (lambda: write_records("x.jsonl", [{"a": object()}]), "record 0: expected values that JSON can represent, got "),
    (lambda: write_records("x.jsonl", [{"a": "\ud800"}]), "record 0: expected values that JSON can represent, got "),
    (lambda: rollouts(MODEL, PROMPTS, max_new_tokens=2, samples=10**9), "samples: expected an integer from 1 to 1048576"),
    (lambda: tinyplm.generate(MODEL, [1], max_new_tokens=2, samples=10**9), "prompts x samples: expected an integer from 1 to"),
])  # fmt: skip
def test_what_belongs_elsewhere(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError), match=message):
        call()
    assert not list(tmp_path.iterdir())


def test_labels_of_other_libraries_are_read():
    """An integer array, from NumPy or another library, works like a list of integers."""
    numbers = [tuning.KINDS.index(kind) for kind in tuning.KINDS]
    assert classification(ENCODER, tuning.TEXTS, np.array(numbers)).targets == DATA.targets
