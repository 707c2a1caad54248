"""What fits factors: alternating least squares, error-preserving correction, and their algebra."""
