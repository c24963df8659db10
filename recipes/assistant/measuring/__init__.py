"""How good the assistant is: metrics, the engine's and the reference's answers, baselines, pictures and the card."""
