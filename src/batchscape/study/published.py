"""Published numbers beside which figures stand."""

import numpy as np
import pandas as pd

LENET = pd.DataFrame(
    {
        "batch": [5000, 2000, 1000, 500, 256, 100, 50, 20, 10, 5],
        "updates": [1999, 4999, 9999, 19999, 38999, 99999, 199999, 499999, 999999, 1999999],
        "time": [1, 1.068, 1.16, 1.38, 1.75, 3.016, 5.027, 8.513, 13.773, 24.055],
        "epoch_to_target": [np.nan, np.nan, 135, 78, 41, 45, 24, 9, 9, np.nan],
        "time_to_target": [np.nan, np.nan, 2.12, 1.48, 1, 1.874, 1.7, 1.082, 1.729, np.nan],
        "best_val_error": [0.015, 0.011, 0.01, 0.01, 0.01, 0.009, 0.0098, 0.0084, 0.01, 0.032],
        "best_epoch": [182, 170, 198, 100, 93, 111, 38, 49, 51, 17],
        "best_test_error": [0.014, 0.01, 0.01, 0.01, 0.01, 0.008, 0.0083, 0.0088, 0.008, 0.0262],
        "final_test_error": [0.0134, 0.01, 0.01, 0.01, 0.01, 0.009, 0.0082, 0.0088, 0.008, 0.0662],
    }
)
"""The table behind article 002: LeNet on 50,000 images of MNIST, 200 epochs, one run each, unknown hardware, target 0.99.

`time` is that of all epochs in units of that at 5,000; batch sizes of 1 and 2 did not converge.
"""

KESKAR = {
    "keskar_f1": {"phi": {"small": 1.23, "large": 205.14}, "test_accuracy": {"small": 0.9803, "large": 0.9781}},
    "keskar_c1": {"phi": {"small": 28.58, "large": 707.23}, "test_accuracy": {"small": 0.8004, "large": 0.7726}},
}
"""Values of Keskar et al. 2017, tables 2 and 3, by model and column."""

NOISE_SCALES = {"start, published": 50, "average, published": 900}
"""Noise scales of a convolutional net on MNIST, in examples (McCandlish et al. 2018, table 1)."""
