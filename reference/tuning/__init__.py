"""Formulas of tuning: LoRA."""
