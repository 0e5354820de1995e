"""The OpenVINO target: a model in OpenVINO's own format, run by OpenVINO here."""

from __future__ import annotations

from graphforge.targets.openvino.target import OpenVINOTarget

__all__ = ["OpenVINOTarget"]
