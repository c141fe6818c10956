"""The model's life: the registry, and what decides about models."""
