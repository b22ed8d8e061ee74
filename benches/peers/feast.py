"""Feast, doing what `peers` asks of it: one JSON object a line in, one a line out.

{"op": "read100", "calls": n} is answered with {"seconds": the median of a call's time}.
{"op": "verify", "calls": n} reads what the other side wrote of n entities from 1000000 on, and ends the program if a value
is another one.
"""

import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from datetime import datetime, timedelta, timezone

warnings.filterwarnings("ignore")
os.environ["FEAST_USAGE"] = "False"

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Float64, Int64, String

FEATURES, ENTITIES, BATCH = 50, 2_000, 100


def value(entity, feature):
    return (entity * 31 + feature * 7) % 1_000 * 0.5


def main(host, port, project):
    folder = tempfile.mkdtemp()
    names = [f"feature_{n:03}" for n in range(FEATURES)]
    event = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    frame = pd.DataFrame(
        {
            "user_id": range(ENTITIES),
            "event_timestamp": [event] * ENTITIES,
            **{name: [value(e, n) for e in range(ENTITIES)] for n, name in enumerate(names)},
        }
    ).astype({name: "float32" for name in names})
    path = os.path.join(folder, "rows.parquet")
    frame.to_parquet(path)
    with open(os.path.join(folder, "feature_store.yaml"), "w") as config:
        config.write(
            f"project: {project}\nprovider: local\nregistry: {folder}/registry.db\n"
            f"entity_key_serialization_version: 3\n"
            f"online_store:\n  type: redis\n  connection_string: {host}:{port}\n"
        )
    store = FeatureStore(repo_path=folder)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(path=path, timestamp_field="event_timestamp")
    wide = FeatureView(
        name="wide",
        entities=[user],
        ttl=timedelta(days=10_000),
        schema=[Field(name="user_id", dtype=Int64)] + [Field(name=name, dtype=Float32) for name in names],
        source=source,
    )
    mixed = FeatureView(
        name="mixed",
        entities=[user],
        ttl=timedelta(days=10_000),
        schema=[
            Field(name="user_id", dtype=Int64),
            Field(name="score", dtype=Float64),
            Field(name="count", dtype=Int64),
            Field(name="name", dtype=String),
            Field(name="flag", dtype=Bool),
            Field(name="vector", dtype=Array(Float32)),
        ],
        source=source,
    )
    store.apply([user, wide, mixed])
    store.write_to_online_store("wide", frame)
    references = [f"wide:{name}" for name in names]

    def read(call):
        rows = [{"user_id": (call * BATCH + n) % ENTITIES} for n in range(BATCH)]
        answer = store.get_online_features(features=references, entity_rows=rows)
        assert len(answer.proto.results) == FEATURES + 1

    def verify(count):
        ids = [1_000_000 + n for n in range(count)]
        features = references + [f"mixed:{name}" for name in ("score", "count", "name", "flag", "vector")]
        answer = store.get_online_features(features=features, entity_rows=[{"user_id": e} for e in ids]).to_dict()
        for row, entity in enumerate(ids):
            for n, name in enumerate(names):
                assert answer[name][row] == value(entity, n), (entity, name, answer[name][row])
            assert answer["score"][row] == entity / 8
            assert answer["count"][row] == -entity
            assert answer["name"][row] == f"ünï {entity}"
            assert answer["flag"][row] is (entity % 2 == 0)
            assert answer["vector"][row] == [1.0, 2.0, 0.5]

    print(json.dumps({}), flush=True)
    call = 0
    for line in sys.stdin:
        order, times = json.loads(line), []
        if order["op"] == "verify":
            verify(order["calls"])
        else:
            for _ in range(order["calls"]):
                call += 1
                start = time.perf_counter()
                read(call)
                times.append(time.perf_counter() - start)
        print(json.dumps({"seconds": statistics.median(times) if times else 0}), flush=True)


main(*sys.argv[1:])
