"""Service: how good a model is, by what it says of text: perplexity, multiple choice, divergence from another."""
