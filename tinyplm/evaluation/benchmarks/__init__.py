"""Benchmarks from the files that their authors publish, asked as lm-evaluation-harness does.

task.py          the common form of a task and its samples
tables.py        files in which a line is a record
glue.py          cola, sst2, mrpc, qqp, mnli, qnli, rte, wnli              TSV
super_glue.py    boolq, cb, copa, multirc, record, sglue_rte, wic, wsc     JSON lines
common_sense.py  hellaswag, piqa, arc_easy, arc_challenge, winogrande      JSON lines
words.py         lambada_openai, lambada_standard, text                    JSON lines, text
exams.py         mmlu, ceval, cmmlu                                        CSV
subjects.py      the subjects' names in Chinese
squad.py         squad, squadv2                                            JSON
summaries.py     cnn_dailymail, xsum                                       JSON lines
gsm8k.py         gsm8k                                                     JSON lines
humaneval.py     humaneval                                                 JSON lines
code.py          programs run with limits; pass@k
measures.py      accuracy by likelihood, totals, standard errors
shots.py         solved examples before a question
running.py       from a file to its numbers
results.py       results in lm-evaluation-harness's layout

    from tinyplm.evaluation.benchmarks import TASKS, evaluate_task
    outcome = evaluate_task(Asker(model), TASKS["piqa"], "valid.jsonl", shots=5)
"""

from . import common_sense, exams, glue, gsm8k, humaneval, squad, summaries, super_glue, words
from .code import pass_at_k, passes
from .measures import choice_measures
from .results import results_of, rows, write_results
from .running import Outcome, evaluate_task
from .task import Sample, Task

TASKS: dict[str, Task] = {
    task.name: task
    for module in (
        glue,
        super_glue,
        common_sense,
        words,
        exams,
        squad,
        summaries,
        gsm8k,
        humaneval,
    )
    for task in module.TASKS
}

__all__ = [
    "TASKS",
    "Outcome",
    "Sample",
    "Task",
    "choice_measures",
    "evaluate_task",
    "pass_at_k",
    "passes",
    "results_of",
    "rows",
    "write_results",
]
