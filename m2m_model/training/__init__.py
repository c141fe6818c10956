"""Windows, steps, validation and what is fitted last: how a model folder comes to be."""
