"""What turns outputs into a number: `loss, backward = f(...)`, written as their docstrings.

cross_entropy.py   of tokens and classes
log_probs.py       of given tokens, and the entropy;   answers.py: of whole answers
regression.py      squared error, binary cross-entropy
contrastive.py     InfoNCE
distillation.py    a student's distributions against a teacher's
preference.py      Bradley-Terry (reward models), DPO
policy.py          PPO, GRPO;   advantages.py: from rewards to advantages
auxiliary.py       language modelling beside a task
targets.py         which places count, and what a sum is divided by

All are sums of weighted terms divided by `total`, so shards and micro-batches add up to one batch.
Import from the modules: many functions have the name of theirs.  The losses over a vocabulary have
forms in chunks in kernels/, under the same name.
"""
