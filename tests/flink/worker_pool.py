"""Beam's pool of Python workers on a loopback port; Beam's own command listens on every address.

python tests/flink/worker_pool.py PORT
"""

import sys
from concurrent import futures

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


class WorkerPool(BeamFnExternalWorkerPoolServicer):
    """A pool that two task managers can share.

    Each of them calls its first worker "1-1", so that the word of one to stop it would end the other's. A
    worker ends by itself when its task manager closes the connection.
    """

    def StopWorker(self, request, context):  # noqa: N802
        return beam_fn_api_pb2.StopWorkerResponse()


def main(port: int) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(WorkerPool(use_process=True), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]))
