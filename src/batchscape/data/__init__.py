"""What goes in: data sets, their splits, and the order in which training sees them."""

from batchscape.data.dataset import Data, function_of, is_function, load_dataset, load_whole
from batchscape.data.order import epoch_order, make_dataset

__all__ = ["Data", "epoch_order", "function_of", "is_function", "load_dataset", "load_whole", "make_dataset"]
