"""What a bundle needs to be used: arrays and pictures in, results, detections and drawings out; no PyTorch."""
