"""Ask a model in TensorFlow Serving, over REST or gRPC, without TensorFlow.

`medclip_keras.load("http://HOST:8501/v1/models/NAME")` is the short way; `connect` sets timeouts and retries.
The extra `client` names the packages that are needed.
"""
