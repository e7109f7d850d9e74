"""The names that a cell knows."""

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar10_5k")
MODELS = ("mlp", "cnn", "cnn_bn", "lenet", "keskar_f1", "keskar_c1")
OPTIMIZERS = (
    "sgd",
    "adam",
    "adamw",
    "rmsprop",
    "adagrad",
    "adadelta",
    "adamax",
    "nadam",
    "ftrl",
    "lion",
    "lamb",
    "muon",
    "rprop",
)
ENGINES = ("auto", "stock", "dataset", "fused")
LR_POLICIES = {"fixed": 0.0, "sqrt": 0.5, "linear": 1.0}
DECAYS = ("constant", "steps", "linear", "cosine", "exponential", "inverse")
WARMUP_FROM = ("zero", "base")
UNITS = ("epochs", "updates", "examples")
"""What a schedule is counted in."""
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
LAST_BATCH = ("keep", "drop")
BUDGETS = ("epochs", "updates", "examples", "until_loss")
ARRAYS = "arrays"
"""Dataset name of a cell whose data were handed over as arrays."""
