"""What families share, from ids to outputs and back.

The walks, which put a family's pieces together:

decoder.py encoder.py seq2seq.py   from ids to hidden states; walks.py: what they share
disentangled.py deberta_parts.py   the pieces of DeBERTa; what its versions share
t5_parts.py                        what T5 and mT5 share
rope.py                            RoPE's settings in a config, and its rotation as a piece
placing.py                         positions and prefix of ChatGLM-6B's texts, read off the ids

From hidden states to outputs and losses:

heads.py causal_lm.py              heads over a vocabulary; those of decoders
encoder_heads.py tasks.py          the heads of encoders, and of tasks
parts.py                           body and head combined, with one gradient or its parts
several.py                         samples of several sequences, such as choices

The models that a user holds:

model.py                           Model, the base of all; protocol.py: what training asks of it
language_model.py                  the base of those with a loss over a vocabulary
causal_model.py score_model.py     decoders, with a language model's head or with scores
routed.py routed_model.py          decoders with experts: the stream; the model
router_losses.py                   the losses of their routers, balance among them
multi_token.py multi_token_model.py  the same with modules for later tokens (DeepSeek-V3)
encoder_model.py                   encoders
seq2seq_model.py                   encoder-decoders; seq2seq_task_model.py: with classes or answers
checks.py                          checks of the arguments of a call

Configs and names:

config.py                          reading and writing config.json
rotary_config.py routed_config.py  the fields that LLaMA-shaped decoders share, and with experts
latent_config.py chatglm_config.py those of decoders with latent attention, and of ChatGLM
seq2seq_config.py                  those that encoder-decoders share
names.py encoder_names.py          renaming between parameter trees and hub names
"""
