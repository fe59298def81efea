"""Parameters, FLOPs, memory, laws of loss, and the time and energy of a run, from numbers alone.

counts.py       parameters by part and FLOPs of a config, without allocation
activations.py  bytes that a training step of our own walk holds, by part, and at its peak
memory.py       bytes of training by part over parallel sizes; of the cache; speed of decoding
laws.py         Kaplan et al. 2020; McCandlish et al. 2018: noise scale; DeepSeek-AI 2024: the rate
chinchilla.py   Hoffmann et al. 2022: the parametric law and its optimum; demand; repeated tokens
fits.py         fitting these laws: three approaches, and intervals by bootstrap
planning.py     sizes for a budget by several laws; time, energy and carbon of a run
"""

from .activations import WALKED as WALKED
from .activations import activations as activations
from .activations import training_memory as training_memory
from .chinchilla import BESIROGLU as BESIROGLU
from .chinchilla import HOFFMANN as HOFFMANN
from .chinchilla import MUENNIGHOFF as MUENNIGHOFF
from .chinchilla import Law as Law
from .chinchilla import constrained_loss as constrained_loss
from .chinchilla import effective as effective
from .chinchilla import inference_optimal as inference_optimal
from .chinchilla import table_optimum as table_optimum
from .counts import PARTS as PARTS
from .counts import causal_pairs as causal_pairs
from .counts import decoding_flops as decoding_flops
from .counts import forward_multiply_adds as forward_multiply_adds
from .counts import parameters as parameters
from .counts import part_of as part_of
from .counts import training_flops as training_flops
from .fits import bootstrap as bootstrap
from .fits import fit_envelope as fit_envelope
from .fits import fit_isoflops as fit_isoflops
from .fits import fit_law as fit_law
from .fits import fit_power as fit_power
from .memory import BYTES as BYTES
from .memory import cache as cache
from .memory import decoding_speed as decoding_speed
from .memory import memory as memory
from .memory import published_activations as published_activations
from .memory import states as states
from .planning import carbon as carbon
from .planning import energy as energy
from .planning import plan as plan
from .planning import seconds as seconds
