"""From crops to logits: augmentation, encoders, aggregators, the network and its bundle."""
