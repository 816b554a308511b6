"""Errors of a process whose others are gone."""

import pytest
import torch.distributed

from tuneline.train.trainer.connection import connection_errors

GONE = "another process of this run is gone, or its host is"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.2]:51937"),
        RuntimeError("Connection closed by peer [10.0.0.2]:3101"),
        torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0"),
    ],
)
def test_a_lost_process_is_one_sentence(error):
    with pytest.raises(ValueError, match=GONE), connection_errors():
        raise error


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), connection_errors():
        raise RuntimeError("mat1 and mat2 must have the same dtype")
