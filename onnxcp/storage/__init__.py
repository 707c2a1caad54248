"""Files that onnxcp writes: whole files, the cache with its keys, and work folders."""
