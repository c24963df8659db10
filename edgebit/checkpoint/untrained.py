"""Models whose projections were rounded to ternary without any training: what is said of them wherever they go."""

UNTRAINED = "rounded without training"  # META's quantisation.projections
UNTRAINED_NOTE = (
    "the projections were rounded to ternary without training (--from-float): most of the model's quality is lost. "
    "`edgebit distill` trains it back"
)
