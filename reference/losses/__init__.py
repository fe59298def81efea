"""What turns outputs into one number."""
