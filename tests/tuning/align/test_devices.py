"""Every recipe with its model on another device: mixing in host arrays fails on the strict one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.test_score_models import scored
from tests.tuning.align.test_dpo import some_pairs
from tests.tuning.align.test_learner import some_sequences, tiny
from tinyplm.core import flatten
from tinyplm.tuning.adapters.lora import lora_of
from tinyplm.tuning.adapters.prefix import prefix_of
from tinyplm.tuning.adapters.soft_prompt import soft_prompt
from tinyplm.tuning.align.distill import DistillSettings, distill
from tinyplm.tuning.align.dpo import DPOSettings, dpo
from tinyplm.tuning.align.grpo import GRPOSettings, grpo
from tinyplm.tuning.align.ppo import PPOSettings, ppo
from tinyplm.tuning.align.reward import RewardSettings, reward
from tinyplm.tuning.align.sft import SFTSettings, sft

FEW = {"steps": 2, "batch_size": 4}
ROUNDS = {"steps": 2, "batch_size": 2, "max_new_tokens": 3}


def first_token(prompts, answers):
    return [float(answer[0]) for answer in answers]


RECIPES = {
    "sft": lambda m: sft(m, some_sequences(), SFTSettings(**FEW), validation=some_sequences(), progress=False),
    "packed": lambda m: sft(m, some_sequences(), SFTSettings(steps=2, batch_size=2, packed=16), progress=False),
    "lora": lambda m: sft(m, some_sequences(), SFTSettings(**FEW), progress=False, **lora_of(m, rank=2)),
    "lora of the table": lambda m: sft(m, some_sequences(), SFTSettings(**FEW), progress=False,
                                       **lora_of(m, rank=2, targets=lambda path, a: path.endswith("tokens"))),
    "prefix": lambda m: sft(m, some_sequences(), SFTSettings(**FEW), progress=False, **prefix_of(m, rows=2)),
    "soft prompt": lambda m: soft_prompt(m, some_sequences(), SFTSettings(**FEW), rows=2, progress=False)[1],
    "dpo": lambda m: dpo(m, some_pairs(), DPOSettings(**FEW), validation=some_pairs(), progress=False),
    "dpo in rows": lambda m: dpo(m, some_pairs(), DPOSettings(**FEW, joint=False), progress=False),
    "grpo": lambda m: grpo(m, [[5], [6]], first_token, GRPOSettings(**ROUNDS, beta=0.1, epochs=2), stop_ids=(), progress=False),
    "ppo": lambda m: ppo(m, [[5], [6]], first_token, PPOSettings(**ROUNDS), stop_ids=(), progress=False),
    "reward": lambda m: reward(m, some_pairs(), RewardSettings(**FEW), validation=some_pairs(), progress=False),
    "distill": lambda m: distill(m, m._with(), some_sequences(), DistillSettings(**FEW), progress=False),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_run_on_devices(name, device):
    """The same losses as on the host, to the float32 rounding of two steps."""

    def model():
        return scored(names=["reward"], dtype="float32") if name == "reward" else tiny(dtype="float32")

    found, expected = RECIPES[name](model().to(device)), RECIPES[name](model())
    assert np.allclose([h["loss"] for h in found.history], [h["loss"] for h in expected.history], rtol=1e-4, atol=1e-5)
    assert flatten(found.theta).keys() == flatten(expected.theta).keys()
