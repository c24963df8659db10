"""Token ids for runs whose text does not matter: golden probes and measurements."""


def spread_ids(vocab_size: int, count: int, first: int = 0) -> list[int]:
    """`count` ids from the place `first` on of one sequence, spread over the vocabulary in a fixed way."""
    return [(7919 * i + 104729) % vocab_size for i in range(first, first + count)]
