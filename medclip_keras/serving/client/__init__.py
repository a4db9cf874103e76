"""Ask a model in TensorFlow Serving, over REST or gRPC, without TensorFlow.

`medclip_keras.load("http://HOST:8501/v1/models/NAME")` is the short way; `served_model.connect` sets timeouts
and retries. The extra `client` adds grpcio, protobuf, requests and tenacity to the package's dependencies.
On a machine without TensorFlow, install these four and numpy, pillow, pydantic, etils[epath], pydicom and
imagecodecs, then the package with `pip install --no-deps`. Compressed DICOM needs pylibjpeg,
pylibjpeg-openjpeg and pyjpegls too.
"""
