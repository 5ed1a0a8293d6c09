"""Fine-tuning on Ray Train: datasets, LoRA and embedder recipes, the model registry. Arrives with the learning loop."""
