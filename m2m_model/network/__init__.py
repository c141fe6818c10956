"""The network as the paper has it, and the laws that its output stands for."""
