"""Training, conversion, evaluation and import of models: the child process of a job attempt."""
