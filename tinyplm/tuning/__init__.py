"""Tuning: every stage after pretraining.

finetuning  models with a head for labels, on labelled texts
align       sft, reward models, PPO, DPO, GRPO, distillation
adapters    LoRA, prefixes, soft prompts: few trained parameters on a frozen model
prompts     classification and few-shot prompting by text alone
data        records, conversations and preference pairs as token sequences
settings    TuningSettings for finetune, RecipeSettings for the recipes of align
"""

from .adapters.lora import load_lora, lora, lora_of, lora_parameters, merge_lora, save_lora
from .adapters.prefix import load_prefix, prefix, prefix_of, save_prefix, with_prefix
from .adapters.soft_prompt import SoftPrompted, continuation, load_rows, save_rows, soft_prompt
from .align.distill import DistillSettings, distill, sampled_answers, text_sequences
from .align.dpo import DPOSettings, dpo
from .align.grpo import GRPOSettings, grpo
from .align.learner import Journal, Learner, token_log_probs
from .align.ppo import PPOResult, PPOSettings, model_reward, ppo
from .align.recipe import Result
from .align.reward import RewardResult, RewardSettings, pair_scores, reward, score
from .align.rollouts import Rollouts, rollouts
from .align.rules import text_reward
from .align.sft import SFTSettings, answer_loss, sft
from .data.conversations import (
    conversation,
    conversations,
    plain,
    preference,
    preferences,
    prompt_ids,
    set_chat_format,
)
from .data.pairs import Pair
from .data.records import check_records, read_records, write_records
from .data.sequences import TokenSequence, answered
from .finetuning.answers import answering
from .finetuning.choices import multiple_choice
from .finetuning.classes import classification
from .finetuning.clozes import cloze_classification
from .finetuning.delimiters import with_delimiters
from .finetuning.finetune import FinetuneResult, finetune
from .finetuning.predict import predict
from .finetuning.tags import tagging
from .prompts.cloze import Cloze, Prefix, Verbaliser, label_probabilities
from .prompts.few_shot import FewShot
from .prompts.instructions import Task, instruction_messages
from .settings import RecipeSettings, TuningSettings

__all__ = [
    "Cloze",
    "DPOSettings",
    "DistillSettings",
    "FewShot",
    "FinetuneResult",
    "GRPOSettings",
    "Journal",
    "Learner",
    "PPOResult",
    "PPOSettings",
    "Pair",
    "Prefix",
    "RecipeSettings",
    "Result",
    "RewardResult",
    "RewardSettings",
    "Rollouts",
    "SFTSettings",
    "SoftPrompted",
    "Task",
    "TokenSequence",
    "TuningSettings",
    "Verbaliser",
    "answer_loss",
    "answered",
    "answering",
    "check_records",
    "classification",
    "cloze_classification",
    "continuation",
    "conversation",
    "conversations",
    "distill",
    "dpo",
    "finetune",
    "grpo",
    "instruction_messages",
    "label_probabilities",
    "load_lora",
    "load_prefix",
    "load_rows",
    "lora",
    "lora_of",
    "lora_parameters",
    "merge_lora",
    "model_reward",
    "multiple_choice",
    "pair_scores",
    "plain",
    "ppo",
    "predict",
    "preference",
    "preferences",
    "prefix",
    "prefix_of",
    "prompt_ids",
    "read_records",
    "reward",
    "rollouts",
    "sampled_answers",
    "save_lora",
    "save_prefix",
    "save_rows",
    "score",
    "set_chat_format",
    "sft",
    "soft_prompt",
    "tagging",
    "text_reward",
    "text_sequences",
    "token_log_probs",
    "with_delimiters",
    "with_prefix",
    "write_records",
]
