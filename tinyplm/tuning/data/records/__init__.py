"""Records: the samples of a file, checked whole and brought into one form.

    instruction     {"instruction": "Add.", "input": "2 and 3", "output": "5"}     Taori et al. 2023
                    input is optional
    conversation    {"messages": [{"role": "user", "content": ...}, ...]}, with the assistant's
                    turns and, perhaps, calls of "tools" (tokenizers.chat.messages); or ShareGPT's
                    {"conversations": [{"from": "human", "value": ...}, ...]}
    preference      {"prompt": ..., "chosen": ..., "rejected": ...}, texts; or a prompt of messages
                    with answers as texts or messages; or, without prompt, two whole conversations
                    that differ only in the last answer
    feedback        {"prompt": ..., "answer" or "completion": ..., "label": true or false}, the
                    prompt and the answer as in a preference
    prompt          {"prompt": text or messages, and anything else a reward needs: "answer", "rule",
                    "pattern" (tuning.align.rules)}
    classification  {"text": ..., "label": ...}, of pairs with "pair"; also GLUE's sentence1 and
                    sentence2, premise and hypothesis
    answering       {"context": ..., "question": ..., "answers": texts, or SQuAD's object with
                    "text" and "answer_start"}; [] if the context has no answer
    tagging         {"tokens": ["Ada", "sleeps"], "tags": ["B-PER", "O"]}

Files: JSON lines, or a .json with a list; .csv and .tsv with a header row for records of texts;
for tagging also a word and its tag a line, and a blank line between sentences (.conll, .tsv).

kinds      what each kind needs, how it is checked, and which kind a record looks like
talks      messages in their forms, ShareGPT's included
tagged     words with tags, CoNLL's columns
reading    read_records, check_records, write_records
splitting  split: held-out records, the same in every run
"""

from .kinds import KINDS, Record, kind_of
from .reading import check_records, read_records, write_records
from .splitting import split

__all__ = ["KINDS", "Record", "check_records", "kind_of", "read_records", "split", "write_records"]
