"""Tuning: every stage after pretraining.

finetuning  models with a head for labels, on labelled texts
align       sft, reward models, PPO, DPO, KTO, GRPO, distillation
adapters    LoRA, prefixes, soft prompts: few trained parameters on a frozen model
prompts     classification and few-shot prompting by text alone
data        records, conversations and preference pairs as token sequences
settings    TuningSettings for finetune, RecipeSettings for the recipes of align
run_folder  the folder of a run: its checkpoints, and resuming from them
identity    what a resumed run must be given again, as facts and hashes
"""

from .adapters.lora import load_lora, lora, lora_of, lora_parameters, merge_lora, save_lora
from .adapters.prefix import load_prefix, prefix, prefix_of, save_prefix, with_prefix
from .adapters.ptuning import load_ptuned
from .adapters.soft_prompt import SoftPrompted, continuation, load_rows, save_rows, soft_prompt
from .align.distill import DistillSettings, distill, sampled_answers, text_sequences
from .align.dpo import DPOSettings, dpo
from .align.grpo import GRPOSettings, grpo
from .align.journal import Journal
from .align.kto import KTOSettings, kto
from .align.learner import Learner, token_log_probs
from .align.ppo import PPOResult, PPOSettings, model_reward, ppo
from .align.recipe import Result
from .align.rejection import Accepted, accepted_answers
from .align.reward import RewardResult, RewardSettings, pair_scores, reward, score
from .align.rollouts import Rollouts, rollouts
from .align.rules import parse_rule, record_reward, text_reward, weighted
from .align.sft import SFTSettings, answer_loss, sft
from .data.chat_format import set_chat_format, with_tokens
from .data.conversations import (
    conversation,
    conversations,
    plain,
    preference,
    preferences,
    prompt_ids,
)
from .data.feedback import Feedback, feedback
from .data.pairs import Pair
from .data.records import check_records, kind_of, read_records, split, write_records
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
    "Accepted",
    "Cloze",
    "DPOSettings",
    "DistillSettings",
    "Feedback",
    "FewShot",
    "FinetuneResult",
    "GRPOSettings",
    "Journal",
    "KTOSettings",
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
    "accepted_answers",
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
    "feedback",
    "finetune",
    "grpo",
    "instruction_messages",
    "kind_of",
    "kto",
    "label_probabilities",
    "load_lora",
    "load_prefix",
    "load_ptuned",
    "load_rows",
    "lora",
    "lora_of",
    "lora_parameters",
    "merge_lora",
    "model_reward",
    "multiple_choice",
    "pair_scores",
    "parse_rule",
    "plain",
    "ppo",
    "predict",
    "preference",
    "preferences",
    "prefix",
    "prefix_of",
    "prompt_ids",
    "read_records",
    "record_reward",
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
    "split",
    "tagging",
    "text_reward",
    "text_sequences",
    "token_log_probs",
    "weighted",
    "with_delimiters",
    "with_prefix",
    "with_tokens",
    "write_records",
]
