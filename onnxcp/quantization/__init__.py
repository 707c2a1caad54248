"""int8 and float16 forms of a model."""
