"""One thread for linear algebra: tests run side by side, and their matrices are small."""

from threadpoolctl import threadpool_limits

threadpool_limits(1)
