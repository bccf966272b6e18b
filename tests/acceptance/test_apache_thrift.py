"""A client made by the official compiler and library talks to soraka."""

import importlib
from typing import Any

import pytest

from tests.acceptance.deployments import Deployment
from tests.acceptance.sink import Sink


def test_submit_cancel_get(generated: Any, deployment: Deployment, sink: Sink) -> None:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.transport.TSocket import TSocket
    from thrift.transport.TTransport import TFramedTransport

    types = importlib.import_module("soraka_client.ttypes")
    topic = deployment.new_topic()
    transport = TFramedTransport(TSocket("127.0.0.1", deployment.thrift_port))
    transport.open()
    try:
        client = generated.Client(TBinaryProtocol(transport))
        callback = types.Callback(
            request_type=types.RequestType.POST, url=sink.url("/apache"), params='{"a": 1}'
        )
        soon = client.submit(types.Submission(topic_name=topic, delay_time=200, callback=callback))
        later = client.submit(
            types.Submission(topic_name=topic, delay_time=60_000, callback=callback)
        )
        (call,) = sink.wait(soon)
        assert call.json() == {"a": 1}
        assert client.cancel(topic, later, None)
        assert client.get(later).state == types.MessageState.CANCELLED
        results = client.submitBatch(
            [
                types.Submission(topic_name=topic, delay_time=1, callback=callback),
                types.Submission(topic_name=topic, delay_time=-1, callback=callback),
            ]
        )
        assert [result.ec for result in results] == [200, 401]
        with pytest.raises(types.InvalidRequest) as refused:
            client.submit(types.Submission(topic_name=topic, delay_time=-1, callback=callback))
        assert refused.value.field == "delay_time"
        with pytest.raises(types.MessageNotFound):
            client.get("01890a5d-ac96-774b-bcce-b302099a8057")
    finally:
        transport.close()
