"""LoRA and prefix tuning, from the papers."""
