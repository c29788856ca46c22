"""InsightFace packs: found, run, and written. The only rooms that see BGR and ONNX."""
