"""Every way to draw a token, each of which a draft must leave as it is."""

from edgebit.runtime.sampler import SamplingParams

SAMPLINGS = {
    "greedy": SamplingParams(),
    "greedy, penalised": SamplingParams(repetition_penalty=1.3, repetition_window=8),
    "drawn": SamplingParams(temperature=1.0, seed=5),
    "drawn, top-k, penalised": SamplingParams(temperature=0.7, top_k=5, repetition_penalty=1.1, seed=6),
    "drawn, top-p": SamplingParams(temperature=0.9, top_p=0.8, seed=7),
}
