"""What samples files say, a JSON line for each: `python -P statistics.py BATCH_SIZE FILE...`."""

import json
import sys

import numpy as np


def largest_under(n, p, alpha):
    """The largest k with P(X <= k) <= alpha, X binomial."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    cdf = np.cumsum(np.exp(logs[n] - logs[k] - logs[n - k] + k * np.log(p) + (n - k) * np.log1p(-p)))
    return int(np.searchsorted(cdf, alpha, side="right")) - 1


def percentile(x, per_mille):
    n, p = len(x), per_mille / 1000
    beyond = largest_under(n, 1 - p, 0.01)
    if beyond < 10:
        return ["AT_MOST", int(x[n - 1 - beyond]), None, None] if beyond >= 1 else ["INSUFFICIENT", None, None, None]
    low, high = largest_under(n, p, 0.025), largest_under(n, 1 - p, 0.025)
    return ["EXACT", *(int(x[i]) for i in (-(-per_mille * n // 1000) - 1, low, n - 1 - high))]


for file in sys.argv[2:]:
    latency, end, _block = np.fromfile(file, "<i8").reshape(3, -1)
    found = {str(per_mille): percentile(np.sort(latency), per_mille) for per_mille in (500, 950, 990, 999)}
    per_second = len(latency) * int(sys.argv[1]) / (int(end[-1]) / 1e9)
    print(
        json.dumps({"count": len(latency), "mean": latency.mean(), "itemsPerSecond": per_second, "percentiles": found})
    )
