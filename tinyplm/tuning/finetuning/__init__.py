"""Fine-tuning on labelled texts, by epochs.

finetune                        the loop: finetune(model, train, validation, settings)
predict                         a model's outputs on samples
classes, tags, answers, choices  the tasks: labels of texts, tags of words, spans, multiple choice
clozes                          classes by words in a GLM's blank, or after a text
samples                         what the tasks share: encoding, labels, batches
delimiters                      a decoder's input formats: <start>, <delimiter>, <extract>
freezing                        training only the upper layers
"""
