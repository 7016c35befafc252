"""Where a classifier looks: maps over its pictures, computed from any functional Keras model, and drawn over them."""
