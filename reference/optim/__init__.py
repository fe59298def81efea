"""Parameter updates, learning-rate schedules, clipping."""
