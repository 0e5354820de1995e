"""What each opset can do for a model: audit, matrix, proof, and the answer told."""
