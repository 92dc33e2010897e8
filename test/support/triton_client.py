"""NVIDIA's client against a running host: `python -P triton_client.py HOST:PORT`. Prints {check: null or what went wrong} as JSON."""

import json
import sys
import traceback

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1], concurrency=4)
A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.full((1, 16), 3, np.int32)


def inputs(binary=True):
    made = [triton.InferInput("INPUT0", A.shape, "INT32"), triton.InferInput("INPUT1", B.shape, "INT32")]
    for tensor, data in zip(made, (A, B), strict=True):
        tensor.set_data_from_numpy(data, binary_data=binary)
    return made


def outputs(binary=True):
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in ("OUTPUT0", "OUTPUT1")]


def right(result):
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), A - B)


def raises(status, says, call):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == status, f"{error.status()}, not {status}"
        assert says in error.message(), error.message()
    else:
        raise AssertionError("no exception")


def is_live_and_ready():
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("arithmetic")
    assert client.is_model_ready("arithmetic", "1")
    assert not client.is_model_ready("nothing")


def reads_the_metadata():
    assert client.get_server_metadata()["name"] == "whetstone"
    metadata = client.get_model_metadata("arithmetic")
    assert metadata["inputs"][1] == {"name": "INPUT1", "datatype": "INT32", "shape": [-1, 16]}, metadata


def reads_the_configuration():
    config = client.get_model_config("arithmetic")
    assert config["max_batch_size"] == 1, config
    assert config["input"][0]["dims"] == [16], config


def reads_the_statistics():
    client.infer("arithmetic", inputs())
    (stats,) = client.get_inference_statistics("arithmetic")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] >= 1
    names = [one["name"] for one in client.get_inference_statistics()["model_stats"]]
    assert names == ["arithmetic", "types", "spin"], names


def reads_the_repository_index():
    names = [one["name"] for one in client.get_model_repository_index()]
    assert names == ["arithmetic", "types", "spin"], names


def infers_in_binary():
    right(client.infer("arithmetic", inputs(), outputs=outputs()))


def infers_in_json():
    right(client.infer("arithmetic", inputs(binary=False), outputs=outputs(binary=False)))


def infers_without_naming_outputs():
    right(client.infer("arithmetic", inputs()))


def gets_its_id_and_a_subset_of_the_outputs():
    result = client.infer("arithmetic", inputs(), outputs=outputs()[:1], request_id="id 7", timeout=10_000_000, priority=1)
    assert result.get_response()["id"] == "id 7"
    assert result.as_numpy("OUTPUT1") is None


def infers_half_precision_integers_and_booleans():
    numpy_types = {"FP16": np.float16, "UINT8": np.uint8, "INT64": np.int64, "BOOL": np.bool_, "FP64": np.float64}
    sent = {port["datatype"]: np.array([0, 1, 0]) for port in client.get_model_metadata("types")["inputs"]}
    made = []
    for name, data in sent.items():
        sent[name] = data.astype(numpy_types.get(name, triton.triton_to_np_dtype(name)))
        tensor = triton.InferInput(f"in_{name}", [3], name)
        tensor.set_data_from_numpy(sent[name])
        made.append(tensor)
    result = client.infer("types", made)
    for name, data in sent.items():
        found = result.as_numpy(f"out_{name}")
        np.testing.assert_array_equal(found, data)
        assert found.dtype == data.dtype


def infers_asynchronously():
    for request in [client.async_infer("arithmetic", inputs(), outputs=outputs()) for _ in range(20)]:
        right(request.get_result(timeout=30))


def compresses_both_ways():
    for algorithm in ("gzip", "deflate"):
        asked = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
        right(client.infer("arithmetic", inputs(), outputs=outputs(), **asked))
        large = triton.InferInput("in_FP32", [256], "FP32")
        large.set_data_from_numpy(np.arange(256, dtype=np.float32))
        others = []
        for port in client.get_model_metadata("types")["inputs"]:
            if port["name"] != "in_FP32":
                tensor = triton.InferInput(port["name"], [256], port["datatype"])
                tensor.set_data_from_numpy(np.zeros(256, triton.triton_to_np_dtype(port["datatype"])))
                others.append(tensor)
        result = client.infer("types", [large, *others], **asked)
        np.testing.assert_array_equal(result.as_numpy("out_FP32"), np.arange(256, dtype=np.float32))


def raises_for_an_unknown_model():
    raises("404", "no deployment or model nothing", lambda: client.infer("nothing", inputs()))
    raises("404", "no deployment or model nothing", lambda: client.get_model_metadata("nothing"))


def raises_for_a_missing_input():
    raises("400", "Missing input: INPUT1", lambda: client.infer("arithmetic", inputs()[:1]))


def raises_for_a_wrong_shape():
    wrong = triton.InferInput("INPUT0", [1, 8], "INT32")
    wrong.set_data_from_numpy(A[:, :8])
    raises("400", "[1,8] does not fit", lambda: client.infer("arithmetic", [wrong, inputs()[1]]))


def raises_for_a_deadline_that_cannot_be_met():
    rounds = triton.InferInput("rounds", [1], "INT64")
    rounds.set_data_from_numpy(np.array([1]))
    raises("429", "deadline", lambda: client.infer("spin", [rounds], timeout=1))


def raises_for_what_is_not_served():
    raises("404", "nothing at this address", lambda: client.unload_model("arithmetic"))


CHECKS = [value for name, value in list(globals().items()) if name.split("_")[0] in ("is", "reads", "infers", "gets", "compresses", "raises")]

if __name__ == "__main__":
    found = {}
    for check in CHECKS:
        if check is raises:
            continue
        try:
            check()
            found[check.__name__] = None
        except Exception:
            found[check.__name__] = traceback.format_exc()
    print(json.dumps(found))
