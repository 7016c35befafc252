"""What is computed rather than trained: analyses in NumPy, SciPy and TensorFlow, each against an exact result."""
