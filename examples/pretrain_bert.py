"""Pretrain a small BERT on real text: masked words, and whether one piece of text follows another.

    python examples/pretrain_bert.py                                     # the default corpus, a few minutes on two cores
    python examples/pretrain_bert.py --objective sentence_order          # ALBERT's second task in place of BERT's
    python examples/pretrain_bert.py --objective none                    # RoBERTa's way: masked words alone
    python examples/pretrain_bert.py --text my-book.txt --out my-run     # your own text
    python examples/pretrain_bert.py --out my-run --resume               # go on after an interruption

What happens, in order: the text is read and split by document; a WordPiece tokenizer is trained; documents are cut into
sentences and those into tokens; the model is trained, with new masks and new pairs in every epoch; and its accuracy stands in a
table beside guesses from counts, on the same masked places of text that it has not seen.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import numpy as np
from common import WORKERS, Parser, command, not_drawn, number, one_of, resumed, start, usable, whole

import tinyplm
from tinyplm.core import map_shards
from tinyplm.data import IGNORED, deduplicate, default_corpus, read_texts, sentence_documents, split_documents
from tinyplm.evaluation.masked import Guesses, joined
from tinyplm.families import bert
from tinyplm.files import sole_writer, write_json
from tinyplm.hub.folders import make_config
from tinyplm.objectives import Layout, MaskedPairs, MaskedSentences, Masking
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find, started
from tinyplm.training.log import plot
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings
from tinyplm.training.step import evaluate_batches

# name: (layers, width, heads).  Published sizes may be given as well, by their names.
SIZES = {"tiny": (2, 64, 2), "small": (2, 256, 4), "medium": (6, 384, 6)}
OBJECTIVES = ("next_sentence", "sentence_order", "none")
FREE = ("out", "workers", "evaluate_every", "save_every")  # may differ on resume: they do not change what is learned
SHOWN = (
    "The method [MASK] a list of strings.",
    "Return [MASK] if the object is empty.",
    "If the file does not [MASK], an exception is raised.",
)


def prepare(options: dict, out: Path) -> Tokenizer:
    """The tokenizer, kept in `out`, trained on the texts that are trained on."""
    training, validation = texts(options)
    if options["objective"] == "next_sentence" and min(len(training), len(validation)) < 2:
        raise ValueError(f"--objective next_sentence takes random sentences from other documents: expected two documents or more "
                         f"for training and for validation, got {len(training)} and {len(validation)}; try another "
                         f"--objective, or a larger --validation")  # fmt: skip
    size = sum(len(d.encode()) for d in (*training, *validation))
    count = len(training) + len(validation)
    print(f"corpus     {count} documents, {size / 1e6:.2f} MB; {len(validation)} of them for validation only")
    tokenizer = Tokenizer.train(training, options["vocabulary"], kind="WordPiece", criterion="frequency")
    tokenizer.save(out)  # with the names of its special tokens
    print(f"tokenizer  WordPiece, {tokenizer.vocab_size} entries")
    return tokenizer


def texts(options: dict) -> tuple[list[str], list[str]]:
    documents = deduplicate(read_texts(options["text"])) if options["text"] else default_corpus()
    return split_documents(documents, options["validation"], options["seed"])


def samples(options: dict, documents: list, tokenizer: Tokenizer, seed: int):
    """Pairs of segments with a label, or rows of whole sentences; masked anew in every epoch."""
    cls_id, sep_id, pad_id, mask_id = (tokenizer.named_id(f"{name}_token") for name in ("cls", "sep", "pad", "mask"))
    common = {"layout": Layout.bert(cls_id=cls_id, sep_id=sep_id, pad_id=pad_id), "seed": seed,
              "masking": Masking(mask_id=mask_id, vocab_size=tokenizer.vocab_size)}  # fmt: skip
    if options["objective"] == "none":
        return MaskedSentences(documents, options["context"], **common)
    return MaskedPairs(documents, options["context"], objective=options["objective"], skip_short=True, **common)


def documents_of(some: list[str], tokenizer: Tokenizer) -> list:
    return sentence_documents(some, lambda sentence: tokenizer.encode(sentence, add_special_tokens=False))


def configure(options: dict, tokenizer: Tokenizer) -> bert.Config:
    common = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": options["context"],
              "pad_token_id": tokenizer.named_id("pad_token"), "hidden_dropout_prob": options["dropout"],
              "attention_probs_dropout_prob": options["dropout"]}  # fmt: skip
    if options["size"] in bert.SIZES:
        return make_config(bert, options["size"], **common)
    layers, width, heads = SIZES[options["size"]]
    # 0.56 / sqrt(width) is 0.02 at BERT's width of 768; a narrow model with 0.02 takes far longer to start learning
    return bert.Config(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width,
                       initializer_range=round(0.56 / width**0.5, 4), **common)  # fmt: skip


def plan(options: dict) -> Settings:
    steps, fifth = options["steps"], max(1, options["steps"] // 5)
    return Settings(steps=steps, batch_size=options["batch"], sequence_length=options["context"], learning_rate=options["lr"],
                    schedule="linear", warmup=min(options["warmup"], steps - 1), weight_decay=0.01, beta2=0.98,
                    seed=options["seed"], workers=options["workers"], evaluate_every=options["evaluate_every"] or fifth,
                    save_every=options["save_every"] or fifth, save_minutes=5.0)  # fmt: skip


def accuracies(model: tinyplm.Model, batches: list, workers: int) -> dict[str, float]:
    """The share of masked places, and of pairs, that the model gets right."""
    right, count = {}, {}
    for inputs, targets in batches:

        def correct(part: dict) -> dict[str, int]:
            outputs, _ = model(**part["inputs"], grad=False)
            return {name: int((outputs[name].argmax(-1) == t).sum()) for name, t in part["targets"].items()}

        for part in map_shards(correct, {"inputs": inputs, "targets": targets}, min(workers, len(inputs["input_ids"]))):
            for name, n in part.items():
                right[name] = right.get(name, 0) + n
        for name, t in targets.items():
            count[name] = count.get(name, 0) + int((t != IGNORED).sum())
    return {name: right[name] / count[name] for name in right}


def report(options: dict, out: Path, documents: list, validation: FixedBatches) -> None:
    """The best checkpoint beside the guesses, what it says to a few sentences, and where everything is."""
    folder = find(out, "best")
    model = tinyplm.load(folder)
    guesses = Guesses((sentence for document in documents for sentence in document), model.config.vocab_size)
    ids, targets = joined(validation.batches)
    found = accuracies(model, validation.batches, options["workers"])
    masked = [(inputs, {"logits": t["logits"]}) for inputs, t in validation.batches]
    loss = evaluate_batches(model, masked, workers=options["workers"])
    print(f"\nValidation, {(targets != IGNORED).sum()} masked places of unseen documents:\n")
    print(f"{'':<32}{'accuracy':>9}{'nats':>8}")
    print(f"{'most frequent token':<32}{guesses.unigram_accuracy(targets):>9.1%}{guesses.unigram_loss(targets):>8.3f}")
    print(f"{'most frequent between neighbours':<32}{guesses.neighbour_accuracy(ids, targets):>9.1%}{'-':>8}")
    name = f"BERT, {model.parameter_count() / 1e6:.2f}M parameters"
    print(f"{name:<32}{found['logits']:>9.1%}{loss:>8.3f}")
    if "pair_logits" in found:
        labels = np.concatenate([t["pair_logits"] for _, t in validation.batches])
        print(f"\n{options['objective'].replace('_', ' ')}: {found['pair_logits']:.1%} of {len(labels)} pairs right, "
              f"the more frequent label alone {max(labels.mean(), 1 - labels.mean()):.1%}")  # fmt: skip
    print("\nWhat the model puts in place of [MASK]:")
    for sentence in SHOWN:
        print(f"    {sentence}  {', '.join(fill(model, sentence))}")
    drawn = plot(out / "log.jsonl", out / "loss.png")
    print(f"\nmodel      {folder} (the best step; transformers loads this folder)")
    print(f"log        {out / 'log.jsonl'}")
    print(f"loss plot  {out / 'loss.png' if drawn else not_drawn()}")
    print(f"fine-tune  {command('finetune_classifier.py', '--model', folder)}")


def fill(model: tinyplm.Model, sentence: str, best: int = 3) -> list[str]:
    """The most likely tokens for the first [MASK] of a sentence."""
    tokenizer = model.tokenizer
    ids = tokenizer.encode(sentence, allow_special=True)
    outputs, _ = model([ids], grad=False)
    logits = outputs["logits"][0, ids.index(tokenizer.named_id("mask_token"))]
    return [tokenizer.decode([int(i)]) for i in np.argsort(-logits)[:best]]


def main() -> None:
    options, resume = arguments()
    out = usable(options["out"])
    settings = plan(options)  # whatever is wrong with the options is said before any work is done
    with sole_writer(out):
        run(options, settings, out, resume)


def run(options: dict, settings: Settings, out: Path, resume: bool) -> None:
    """Prepare, or take up what is there; train; report."""
    begin = time.perf_counter()
    if not resume:
        if started(out):
            raise ValueError(f"{out} holds a run already: add --resume to go on with it, or give another --out")
        tokenizer = prepare(options, out)
        write_json(out / "run.json", {"options": options, "facts": {}})
    else:
        tokenizer = Tokenizer.load(out)
    training, validation = (documents_of(part, tokenizer) for part in texts(options))
    fixed = FixedBatches(samples(options, validation, tokenizer, seed=1), options["validation_samples"])
    print(f"tokens     {sum(len(s) for d in training for s in d)} to train on ({time.perf_counter() - begin:.0f} s)")
    task = "masked_lm" if options["objective"] == "none" else "pretraining"
    model = tinyplm.create("bert", configure(options, tokenizer), task=task, key=options["seed"])
    model.tokenizer = tokenizer
    print(f"model      {model}")
    state = train(model, samples(options, training, tokenizer, options["seed"]), fixed, settings, out=out, resume=started(out))
    print(f"trained    {state.step} steps, {state.tokens} tokens in {state.seconds:.0f} s")
    if state.signal is not None:
        print(f"stopped    by {signal.Signals(state.signal).name}; "
              f"resume with: {command('pretrain_bert.py', '--out', out, '--resume')}")  # fmt: skip
        sys.exit(128 + state.signal)
    report(options, out, training, fixed)


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--text", [], "Your own UTF-8 text files.", nargs="+", metavar="FILE", otherwise="Python's own documentation")
    option("--objective", "next_sentence", f"What is learned beside the masked words: {', '.join(OBJECTIVES)}.",
           one_of(*OBJECTIVES))  # fmt: skip
    option("--size", "small", f"The size: {', '.join(SIZES)}; or a published size: {', '.join(bert.SIZES)}.",
           one_of(*SIZES, *bert.SIZES))  # fmt: skip
    option("--steps", 2500, "The number of training steps.", whole(1))
    option("--batch", 32, "The number of samples in a step.", whole(1))
    option("--context", 32, "The number of tokens of a sample.", whole(8))
    option("--vocabulary", 2048, "The number of entries of the tokenizer.", whole(6))
    option("--lr", 1e-3, "The peak of the learning rate.", number(above=0.0))
    option("--warmup", 150, "The number of warm-up steps.", whole())
    option("--dropout", 0.0, "The dropout rate.", number(least=0.0, below=1.0))
    option("--validation", 0.05, "The share of the text kept for validation.", number(above=0.0, below=1.0))
    option("--validation-samples", 512, "The number of samples to validate on.", whole(1))
    option("--seed", 0, "The seed of everything that is random.", whole())
    option("--evaluate-every", None, "Evaluate every N steps.", whole(1), otherwise="a fifth of all steps")
    option("--save-every", None, "Save a checkpoint every N steps.", whole(1), otherwise="a fifth of all steps")
    option("--workers", WORKERS, "The number of threads that share a batch.", whole(1))
    option("--out", "out-bert", "The folder for everything that is made.", metavar="FOLDER")
    parser.flag("--resume", "Resume the run in --out, however it ended.")
    return parser


def arguments() -> tuple[dict, bool]:
    """Options, with --resume those of the run, which the command line may not contradict; and whether it is resumed."""
    reader = parser()
    given = reader.given()
    if given.pop("resume", False):
        return resumed(reader, given, FREE, set())[0], True
    return {name: value for name, value in {**reader.defaults, **given}.items() if name != "resume"}, False


if __name__ == "__main__":
    start(main, "interrupted: the same command line with --resume goes on from the last checkpoint, if there is one")
