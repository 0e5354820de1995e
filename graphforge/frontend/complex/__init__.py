"""Complex numbers as two real values.

ONNX has no arithmetic on complex numbers, so a complex tensor is a ``Pair`` from capture on: its real and its imaginary
part, two real values of its shape.  What becomes of an operator that meets one, in this order:

1. a rule of this folder (``@lowers_pairs``): products, quotients, functions, Fourier transforms;
2. ``parts.py``: an operator that moves or adds elements does so to either part, by the real operator's own rule;
3. torch's decomposition of it, whose calls go the same way.

A complex input or output of the model is a real one with a last axis of two, real part first: what
``torch.view_as_real`` makes of it.
"""
