"""What learns: networks, their training, maps of embeddings. Needs torch, not InsightFace or ONNX."""
