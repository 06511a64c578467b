"""Runs in an MLflow store, for `benchmarks.pages`; started by an interpreter that has MLflow.

python mlflow_runs.py STORE RUNS.json     (a list of {"name", "params", "metrics"}; prints the runs' ids)
"""

import json
import sys
from pathlib import Path

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient


def main() -> None:
    """Write the runs into MLflow's default experiment."""
    client = MlflowClient(tracking_uri=sys.argv[1])
    ids = []
    for run in json.loads(Path(sys.argv[2]).read_text()):
        run_id = client.create_run("0", run_name=run["name"]).info.run_id
        metrics = [Metric(name, value, 0, 0) for name, value in run["metrics"].items()]
        client.log_batch(run_id, metrics, [Param(name, str(value)) for name, value in run["params"].items()])
        client.set_terminated(run_id)
        ids.append(run_id)
    print(json.dumps(ids))


if __name__ == "__main__":
    main()
