"""Losses in plain form: `loss, backward = f(...)`, coded as the docstrings state them.

cross_entropy.py   cross-entropy of tokens and classes, with label smoothing
log_probs.py       log-probabilities of given tokens, and the entropy
answers.py         log-probabilities of whole answers
regression.py      squared error, binary cross-entropy
contrastive.py     InfoNCE
distillation.py    a student's distributions against a teacher's
preference.py      DPO, IPO, hinge; Bradley-Terry (reward models)
reference_free.py  ORPO, SimPO
feedback.py        KTO
policy.py          GRPO; PPO's clipped surrogate and value loss; the k3 estimate of KL
sequence_policy.py GSPO
balance.py         balance between experts: Switch's and DeepSeek-V3's losses, router z-loss, and
                   a bias that is updated without a loss
advantages.py      from rewards to advantages, without gradient: GAE, GRPO's groups, length
auxiliary.py       language modelling beside a task
targets.py         which places count, and what a sum is divided by

All are sums of weighted terms divided by `total`, so shards and micro-batches add up to one batch.
Import from the modules, since many functions share their module's name.  The losses over a
vocabulary have twins in kernels/, under the same name, that work on chunks of tokens.
"""
