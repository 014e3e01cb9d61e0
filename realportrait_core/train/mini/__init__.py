"""How MINI, the pack's own weights, is trained. The paper's model does not need it."""
