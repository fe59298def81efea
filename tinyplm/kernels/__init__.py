"""Fast twins of layers and losses: same name, same signature, same numbers; each says what it gains."""
