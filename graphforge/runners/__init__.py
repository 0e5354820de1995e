"""Runners: what executes a model (eager PyTorch, ONNX Runtime), its inputs, and custom operators on the way."""
