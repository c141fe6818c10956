"""How Spark is used: the session, sources, SQL files, bucketed kernels, training ranks."""
