"""The published experiments again: data, protocol, the paper's values, ours beside them."""
