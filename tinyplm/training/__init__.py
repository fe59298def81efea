"""Training: the loop, what it reads, and what it writes.

loop         train(model, training, validation, settings, out=...): updates, evaluation, saving
settings     Settings, the hyperparameters of a run
presets      proposals of a run for a corpus, a machine and some hours: sizes, steps, rates
samples      training and validation data: token arrays, samples of an objective
step         one update: gradient accumulation, clipping, the optimiser; evaluation
expert_load  the experts' counts joined over a step, the routers' biases, what the log says
checkpoint   out/step-N/: saving, finding, resuming, pruning
folders      checkpoint folders on disk: atomic writing, checksums, damage
incremental  checkpoints that hold only what changed
log          log.jsonl, the progress bar, the plot of the loss, the log as a table
writers      copies of the log for TensorBoard and Weights & Biases
monitor      outliers in the loss and the gradient norm
interrupt    SIGINT and SIGTERM
environment  library versions and the machine, compared on resume
"""
