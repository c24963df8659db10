"""Service: a model or checkpoint written in another program's format, its codes and scales as they are."""
