"""Alignment: recipes that train a language model by steps.

sft       cross-entropy on answers
reward    a reward model from preference pairs
dpo       a policy from preference pairs, with the losses of pair_losses
kto       a policy from answers that are judged one by one
ppo       reinforcement learning with a value head
grpo      reinforcement learning with rewards compared within groups
distill   a student from a teacher's distributions or answers
learner   a model trained with any loss on its outputs
journal   what a run writes: its log, progress, checkpoints and result
recipe    what the recipes share: results, the loop over a fixed set of samples
rejection answers of a policy that a reward accepts, as data for sft
redraws   groups with equal rewards drawn again
rounds    what ppo and grpo share: the loop of rollouts, rewards and updates
rollouts  answers drawn from a policy
rules     rules on texts as rewards: exact, numeric, format ..., and functions of the user's
"""
