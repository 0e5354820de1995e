"""Reading ONNX files: safely, with their origins, raised or lowered to the home opset."""
