"""The product as a plain library: it imports neither Ray nor FastAPI nor MLflow."""
