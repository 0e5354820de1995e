"""Operators that MagicMind's ONNX importer is known, thought, or known not to take: plain data with its evidence.

The official operator list is not public.  EVIDENCED gathers the operators of graphs that public Cambricon samples
build: those named in their text (tacotron2's decoder, mmdetection's pins, resnet50-v1-7), and those that the sample
architectures imply.  Being absent here means unknown, not refused.
"""

from __future__ import annotations

__all__ = ["EVIDENCED", "FRAGILE", "REFUSED"]

EVIDENCED = frozenset(
    # Named in samples.
    "NonMaxSuppression Sqrt Mul Loop Sigmoid Less And Not Equal Add Cast ReduceSum Squeeze Shape ConstantOfShape "
    "Transpose Unsqueeze Conv BatchNormalization Relu MaxPool GlobalAveragePool Flatten Reshape Gemm "
    # Implied by the architectures that samples build.
    "ConvTranspose LeakyRelu Tanh Softmax Clip AveragePool MatMul Sub Div Pow Exp Erf ReduceMean ReduceMax Concat "
    "Split Slice Gather GatherElements GatherND ScatterND Expand Tile Range Where Greater Or Floor Log Neg Pad "
    "Resize Upsample TopK RoiAlign LSTM GRU RandomUniform RandomUniformLike Constant Identity".split()
)

# Operators that a public text or source says are not taken.
REFUSED = {
    "CumSum": "asserted unsupported in a Cambricon backend",
    "DeformConv": "not an operator of the opsets that the importer takes; samples replace it",
    "Scan": "no sample has one, and the older bridge refuses it",
    **dict.fromkeys(
        "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence "
        "ConcatFromSequence StringNormalizer TfIdfVectorizer".split(),
        "sequences and strings have no MagicMind type",
    ),
}

# Operators to keep out of fused and integer execution (tacotron2 and wenet build with fusion off and no int8).
FRAGILE = frozenset("Loop If Scan RandomUniform RandomUniformLike LSTM GRU".split())
