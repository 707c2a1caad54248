"""Fits and evaluations elsewhere: processes of this machine, or the workers of a Dask cluster."""
