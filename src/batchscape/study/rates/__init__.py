"""The study of the learning rate: how it must follow the batch size."""
